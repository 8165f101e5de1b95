import pytest

from autotuner.engines.names import knows


@pytest.mark.parametrize(
    "name", ["tp-size", "schedule-policy", "schedule_policy", "max-num-seqs", "max_beam_width", "max-beam-width"]
)
def test_a_name_of_autotune_or_of_any_engine_is_known(name):
    assert knows(name)


@pytest.mark.parametrize("name", ["tp-sise", "gpus", "runtime", ""])
def test_another_name_is_not(name):
    assert not knows(name)
