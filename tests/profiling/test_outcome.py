"""What a profile says where a phase has no good point."""

from autotuner.profiling.mappings import ParallelMapping
from autotuner.profiling.outcome import ProfileOutcome
from autotuner.profiling.points import NOT_CACHED
from autotuner.profiling.record import ProfileRecord
from autotuner.profiling.sweep import SweepResult
from tests.profiling.points import decode, prefill, sla_request


def test_an_engine_that_caches_nothing_is_told_from_one_that_is_slow(tmp_path):
    record = ProfileRecord(tmp_path, sla_request())
    rejected = decode(4, 0.01, rejection=f"{NOT_CACHED}: the prefix cache held 0% of them")
    record.points[ParallelMapping("tp", 1)] = {point.key: point for point in (prefill(600, 0.1), rejected)}
    error = ProfileOutcome(record, SweepResult()).infeasible_error()
    assert error is not None
    assert error.what == "There is no good decode point."
    assert "prefix caching" in (error.remedy or "")
    assert "Loosen" not in str(error)
