import pytest

from autotuner.core import Candidate, Failure, FailureKind, Measurement, Trial
from autotuner.search.exclusions import Exclusions, needs_as_much_memory


def candidate(**parameters) -> Candidate:
    return Candidate("vllm", {name.replace("_", "-"): value for name, value in parameters.items()})


def failed(number: int, kind: FailureKind, candidate: Candidate, message: str = "") -> Trial:
    return Trial(number, candidate, Measurement("measured", (), Failure(kind, message, "")), 0.0, 1.0)


def exclusions_after(*trials: Trial) -> Exclusions:
    exclusions = Exclusions()
    for trial in trials:
        exclusions.add(trial)
    return exclusions


def test_out_of_memory_excludes_candidates_that_need_at_least_as_much():
    out_of_memory = failed(3, FailureKind.OUT_OF_MEMORY_UNDER_LOAD, candidate(tp_size=2, max_running_requests=64))
    exclusions = exclusions_after(out_of_memory)
    assert exclusions.exclusion_reason(candidate(tp_size=1, max_running_requests=64))
    assert exclusions.exclusion_reason(candidate(tp_size=2, max_running_requests=128))
    assert exclusions.exclusion_reason(candidate(tp_size=4, max_running_requests=64)) is None
    assert exclusions.exclusion_reason(candidate(tp_size=2, max_running_requests=32)) is None
    assert "trial 3" in (exclusions.exclusion_reason(candidate(tp_size=1, max_running_requests=128)) or "")


def test_candidates_that_differ_in_other_parameters_may_need_less_memory():
    assert not needs_as_much_memory(
        candidate(tp_size=1, kv_cache_dtype="fp8"), candidate(tp_size=2, kv_cache_dtype="auto")
    )
    assert not needs_as_much_memory(candidate(mem_fraction_static=0.95), candidate(mem_fraction_static=0.9))


def test_a_refused_flag_excludes_the_value_it_names():
    message = "argument --block-size: invalid choice: 7"
    exclusions = exclusions_after(failed(2, FailureKind.BAD_FLAG, candidate(block_size=7, tp_size=1), message))
    assert exclusions.exclusion_reason(candidate(block_size=7, tp_size=2)) == "block-size=7 was refused in trial 2"
    assert exclusions.exclusion_reason(candidate(block_size=16, tp_size=1)) is None


def test_a_missing_model_excludes_every_candidate():
    exclusions = exclusions_after(failed(1, FailureKind.MODEL_NOT_FOUND, candidate(tp_size=1)))
    assert exclusions.exclusion_reason(candidate(tp_size=8))


def test_two_crashes_exclude_the_values_they_share_unless_those_have_worked():
    crash = FailureKind.CRASHED_AT_START
    exclusions = exclusions_after(
        Trial(1, candidate(a=1, b=1, c=2), Measurement("measured", ()), 0.0, 1.0),
        failed(2, crash, candidate(a=2, b=1, c=1)),
        failed(3, crash, candidate(a=2, b=2, c=1)),
    )
    assert exclusions.exclusion_reason(candidate(a=2, b=3, c=1))
    assert exclusions.exclusion_reason(candidate(a=1, b=3, c=1)) is None


@pytest.mark.parametrize(("similar", "different"), [(candidate(a=1, b=1), candidate(a=2, b=2))])
def test_one_crash_lowers_the_success_probability_of_similar_candidates(similar, different):
    exclusions = exclusions_after(failed(1, FailureKind.CRASHED_UNDER_LOAD, candidate(a=1, b=9)))
    assert exclusions.exclusion_reason(similar) is None
    assert exclusions.success_probability(similar) < exclusions.success_probability(different) == 1.0


def test_what_a_cluster_did_to_a_trial_says_nothing_of_its_candidate():
    kinds = (
        FailureKind.UNSCHEDULABLE,
        FailureKind.QUOTA,
        FailureKind.EVICTED,
        FailureKind.PREEMPTED,
        FailureKind.NODE_LOST,
        FailureKind.JOB_CANCELLED,
        FailureKind.JOB_TIME_LIMIT,
        FailureKind.JOB_OUT_OF_MEMORY,
    )
    exclusions = exclusions_after(*(failed(number, kind, candidate(tp_size=2)) for number, kind in enumerate(kinds)))
    assert exclusions.exclusion_reason(candidate(tp_size=2)) is None
    assert exclusions.success_probability(candidate(tp_size=2)) == 1


def test_a_volume_or_a_policy_that_keeps_a_pod_out_excludes_every_candidate():
    for kind in (FailureKind.VOLUME, FailureKind.REJECTED):
        assert exclusions_after(failed(1, kind, candidate(tp_size=1))).exclusion_reason(candidate(tp_size=8))
