import pytest

from autotuner.engines.parameters import is_known_parameter


@pytest.mark.parametrize(
    "name", ["tp-size", "schedule-policy", "schedule_policy", "max-num-seqs", "max_beam_width", "max-beam-width"]
)
def test_a_name_of_autotune_or_of_any_engine_is_known(name):
    assert is_known_parameter(name)


@pytest.mark.parametrize("name", ["tp-sise", "gpus", "runtime", ""])
def test_another_name_is_not(name):
    assert not is_known_parameter(name)
