from dataclasses import replace

import pytest

from autotuner.engines.parameters import canonical_parameters, is_known_parameter


@pytest.mark.parametrize(
    "name", ["tp-size", "schedule-policy", "schedule_policy", "max-num-seqs", "max_beam_width", "max-beam-width"]
)
def test_a_name_of_autotune_or_of_any_engine_is_known(name):
    assert is_known_parameter(name)


@pytest.mark.parametrize("name", ["tp-sise", "gpus", "runtime", ""])
def test_another_name_is_not(name):
    assert not is_known_parameter(name)


def test_a_number_of_hundreds_of_digits_out_of_bounds_is_named_in_a_few():
    fraction = replace(canonical_parameters()["mem-fraction-static"], exclusive_minimum=0.0, maximum=1.0)
    assert fraction.problem(10**400) == "must be at most 1, not 1.00e+400"
    assert fraction.problem(-(10**400)) == "must be above 0, not -1.00e+400"
