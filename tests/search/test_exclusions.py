import pytest

from autotuner.core import Candidate, Failure, FailureKind, Measurement, Trial
from autotuner.search.exclusions import Exclusions, needs_as_much_memory


def candidate(**parameters) -> Candidate:
    return Candidate("vllm", {name.replace("_", "-"): value for name, value in parameters.items()})


def failed(number: int, kind: FailureKind, of: Candidate, said: str = "") -> Trial:
    return Trial(number, of, Measurement("measured", (), Failure(kind, said, "")), 0.0, 1.0)


def learned(*trials: Trial) -> Exclusions:
    lessons = Exclusions()
    for trial in trials:
        lessons.add(trial)
    return lessons


def test_out_of_memory_rules_out_what_needs_no_less():
    oom = failed(3, FailureKind.OUT_OF_MEMORY_UNDER_LOAD, candidate(tp_size=2, max_running_requests=64))
    lessons = learned(oom)
    assert lessons.exclusion_reason(candidate(tp_size=1, max_running_requests=64))
    assert lessons.exclusion_reason(candidate(tp_size=2, max_running_requests=128))
    assert lessons.exclusion_reason(candidate(tp_size=4, max_running_requests=64)) is None
    assert lessons.exclusion_reason(candidate(tp_size=2, max_running_requests=32)) is None
    assert "trial 3" in (lessons.exclusion_reason(candidate(tp_size=1, max_running_requests=128)) or "")


def test_what_differs_in_anything_else_may_need_less():
    assert not needs_as_much_memory(
        candidate(tp_size=1, kv_cache_dtype="fp8"), candidate(tp_size=2, kv_cache_dtype="auto")
    )
    assert not needs_as_much_memory(candidate(mem_fraction_static=0.95), candidate(mem_fraction_static=0.9))


def test_a_refused_flag_removes_the_value_it_names():
    said = "argument --block-size: invalid choice: 7"
    lessons = learned(failed(2, FailureKind.BAD_FLAG, candidate(block_size=7, tp_size=1), said))
    assert lessons.exclusion_reason(candidate(block_size=7, tp_size=2)) == "block-size=7 was refused in trial 2"
    assert lessons.exclusion_reason(candidate(block_size=16, tp_size=1)) is None


def test_a_missing_model_is_missing_for_every_candidate():
    lessons = learned(failed(1, FailureKind.MODEL_NOT_FOUND, candidate(tp_size=1)))
    assert lessons.exclusion_reason(candidate(tp_size=8))


def test_two_crashes_with_something_in_common_that_never_worked_rule_it_out():
    crash = FailureKind.CRASHED_AT_START
    lessons = learned(
        Trial(1, candidate(a=1, b=1, c=2), Measurement("measured", ()), 0.0, 1.0),
        failed(2, crash, candidate(a=2, b=1, c=1)),
        failed(3, crash, candidate(a=2, b=2, c=1)),
    )
    assert lessons.exclusion_reason(candidate(a=2, b=3, c=1))
    assert lessons.exclusion_reason(candidate(a=1, b=3, c=1)) is None


@pytest.mark.parametrize(("one", "other"), [(candidate(a=1, b=1), candidate(a=2, b=2))])
def test_one_crash_lowers_the_chance_of_what_is_like_it(one, other):
    lessons = learned(failed(1, FailureKind.CRASHED_UNDER_LOAD, candidate(a=1, b=9)))
    assert lessons.exclusion_reason(one) is None
    assert lessons.success_probability(one) < lessons.success_probability(other) == 1.0
