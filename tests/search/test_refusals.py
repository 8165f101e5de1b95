"""The remedies where no candidate can run."""

import pytest

from autotuner.config import TaskContext, compose
from autotuner.errors import ConfigError
from autotuner.run_setup import RunSetup
from autotuner.search.refusals import _refusal_remedy


@pytest.mark.parametrize(
    ("reasons", "remedy"),
    [
        (
            ["28 attention heads are not divisible by tp-size 3"],
            "Set sizes that divide 28: --set parameters.tp-size=[1, 2, 4, 7, 14]",
        ),
        (["breaks the constraint all: tp-size == gpus"], "Remove the constraint with --set constraints.all=null"),
        (
            ["it needs 8 GPUs and 2 may be used"],
            "Allow more GPUs with --total-gpus, or set sizes whose product is at most 2",
        ),
        (["the simulated engine has no dp-size; simulate one replica"], "Set dp-size to 1: --set parameters.dp-size=1"),
        (["61 layers are fewer than pp-size 62"], "Set pp-size to at most 61"),
        (
            ["tp-size 4 is not a multiple of ep-size 3, over which its experts are split"],
            "Set sizes that divide 4: --set parameters.ep-size=[1, 2, 4]",
        ),
        (["a and b both set --c"], "Keep one of a and b"),
        (["it does not fit: the KV cache of one request of max-model-len 9 needs"], "Lower max-model-len"),
        (["something else"], "Change the parameters that the reason names"),
        ([], "Give every parameter at least one value."),
    ],
)
def test_the_remedy_for_an_empty_space_follows_from_the_rejection_reasons(reasons, remedy):
    assert _refusal_remedy(reasons).startswith(remedy)


def test_the_remedy_does_not_suggest_the_size_that_was_set():
    overrides = {"parameters": {"tp-size": [1]}}
    context = TaskContext(base_runtime="sim", model_name="llama-3.1-70b", user_overrides=overrides)
    experiment = compose(context).experiment
    with pytest.raises(ConfigError) as caught:
        RunSetup.from_experiment(experiment)
    assert "tp-size=[1]" not in caught.value.remedy
    assert "larger tp-size" in caught.value.remedy
