"""How a candidate's parallel sizes are read: once, for everything that counts GPUs."""

import pytest

from autotuner.core import Candidate, Parallelism


@pytest.mark.parametrize("unset", [{}, {"tp-size": None, "pp-size": None}, {"dp-size": 0}, {"ep-size": "auto"}])
def test_a_parallel_size_that_is_not_set_is_one(unset):
    assert Parallelism.of(unset) == Parallelism(tp=1, pp=1, dp=1, ep=1)


@pytest.mark.parametrize(
    ("parameters", "gpus"),
    [
        ({}, 1),
        ({"tp-size": 4}, 4),
        ({"tp-size": 2, "pp-size": 2, "dp-size": 3}, 12),
        ({"tp-size": None}, 1),
        ({"tp-size": 4, "ep-size": 4}, 4),
    ],
)
def test_a_candidate_takes_tp_x_pp_x_dp_gpus(parameters, gpus):
    assert Candidate("vllm", parameters).gpus == gpus


def test_replicas_of_the_attention_layers_share_the_gpus_of_tp():
    sizes = {"tp-size": 8, "dp-size": 4}
    shared = Parallelism.of({**sizes, "enable-dp-attention": True})
    assert (shared.gpus, shared.attention_tp) == (8, 2)
    assert (Parallelism.of(sizes).gpus, Parallelism.of(sizes).attention_tp) == (32, 8)
