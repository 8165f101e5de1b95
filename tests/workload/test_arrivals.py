from __future__ import annotations

import json
import math
import statistics
import tempfile
from dataclasses import replace
from itertools import islice, pairwise, takewhile
from pathlib import Path
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autotuner import traces
from autotuner.core import LoadPoint, Workload
from autotuner.errors import ConfigError
from autotuner.workload import arrivals


def offsets(rate: float, arrival: str, number: int = 5000, seed: int = 1) -> list[float]:
    return list(islice(arrivals.steady_offsets(rate, arrival, Random(seed)), number))


def inter_arrival_times(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


def test_constant_arrivals_do_not_drift():
    assert offsets(3.0, "constant")[3000] == 1000.0


@pytest.mark.parametrize(("arrival", "variation"), [("poisson", 1.0), ("gamma:0.25", 2.0), ("gamma:4", 0.5)])
def test_arrivals_have_the_rate_and_the_burstiness_requested(arrival: str, variation: float):
    intervals = inter_arrival_times(offsets(10.0, arrival, 20_000))
    mean = statistics.fmean(intervals)
    assert mean == pytest.approx(0.1, rel=0.05)
    assert statistics.stdev(intervals) / mean == pytest.approx(variation, rel=0.1)


@given(st.sampled_from(["constant", "poisson", "gamma:0.3"]), st.floats(0.01, 1000), st.integers(0, 99))
def test_arrivals_never_go_back_and_repeat_with_their_seed(arrival: str, rate: float, seed: int):
    times = offsets(rate, arrival, 50, seed)
    assert times == sorted(times)
    assert times[0] >= 0
    assert times == offsets(rate, arrival, 50, seed)


@pytest.mark.parametrize(
    "arrival", ["posson", "gamma", "gamma:0", "gamma:-1", "gamma:x", "gamma:inf", "constant:2", ""]
)
def test_an_unknown_arrival_is_refused(arrival: str):
    with pytest.raises(ConfigError):
        arrivals.steady_offsets(1.0, arrival, Random(0))


def test_a_misspelt_arrival_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'poisson'"):
        arrivals.steady_offsets(1.0, "posson", Random(0))


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_must_be_above_zero(rate: float):
    with pytest.raises(ConfigError, match="rate"):
        arrivals.steady_offsets(rate, "constant", Random(0))


# ramps


def ramp_offsets(
    ends: str, rate: float = 50.0, *, warmup: float = 10.0, duration: float = 100.0, seed: int = 1
) -> list[float]:
    point = LoadPoint("D(5,5)", rate=rate)
    workload = Workload((point,), arrival=f"ramp:{ends}", warmup=warmup, duration=duration, seed=seed)
    return list(takewhile(lambda offset: offset < warmup + duration, arrivals.offsets(point, workload)))


def rate_between(times: list[float], begin: float, end: float) -> float:
    return sum(begin <= time < end for time in times) / (end - begin)


@pytest.mark.parametrize(("ends", "first", "last"), [("20-80", 20.0, 80.0), ("80-20", 80.0, 20.0), ("1-4", 20.0, 80.0)])
def test_a_ramp_goes_from_one_rate_to_the_other_and_averages_the_load_points(ends: str, first: float, last: float):
    times = ramp_offsets(ends)
    slope = (last - first) / 100
    assert rate_between(times, 0, 10) == pytest.approx(first, rel=0.25)
    assert rate_between(times, 10, 20) == pytest.approx(first + 5 * slope, rel=0.2)
    assert rate_between(times, 100, 110) == pytest.approx(last - 5 * slope, rel=0.2)
    assert rate_between(times, 10, 110) == pytest.approx(50.0, rel=0.05)


def test_a_ramp_between_equal_rates_is_poisson():
    intervals = inter_arrival_times(ramp_offsets("3-3", duration=300.0))
    mean = statistics.fmean(intervals)
    assert mean == pytest.approx(0.02, rel=0.05)
    assert statistics.stdev(intervals) / mean == pytest.approx(1.0, rel=0.05)


@given(st.floats(0.1, 9), st.floats(0.1, 9), st.floats(0.0, 5), st.integers(0, 99))
def test_a_ramp_never_goes_back(first: float, last: float, warmup: float, seed: int):
    times = ramp_offsets(f"{first:.3f}-{last:.3f}", warmup=warmup, duration=2.0, seed=seed)
    assert times == sorted(times)
    assert all(time >= 0 for time in times)


@pytest.mark.parametrize("arrival", ["ramp", "ramp:5", "ramp:0-5", "ramp:5-0", "ramp:a-b", "ramp:1.2.3-4", "trace:5"])
def test_an_arrival_without_its_numbers_is_refused(arrival: str):
    point = LoadPoint("D(5,5)", rate=1.0)
    with pytest.raises(ConfigError):
        arrivals.check(Workload((point,), arrival=arrival))


# traces


def trace(folder: Path, times: list[float | None]) -> str:
    rows = [{"timestamp": time, "input_length": 10 + n, "output_length": 5 + n} for n, time in enumerate(times)]
    path = folder / "trace.jsonl"
    path.write_text(
        "\n".join(json.dumps({name: value for name, value in row.items() if value is not None}) for row in rows)
    )
    return f"file:{path}"


def replayed(scenario: str, rate: float, warmup: float = 0.0) -> list[float]:
    point = LoadPoint(scenario, rate=rate)
    return list(arrivals.offsets(point, Workload((point,), arrival="trace", warmup=warmup)))


def test_a_trace_is_replayed_at_the_load_points_rate_and_then_over(tmp_path: Path):
    scenario = trace(tmp_path, [100.0, 101.0, 101.0, 104.0, 108.0])
    assert replayed(scenario, 0.5) == [0, 1, 1, 4, 8]
    assert replayed(scenario, 5.0) == pytest.approx([0, 0.1, 0.1, 0.4, 0.8])


@given(st.lists(st.floats(0, 1000), min_size=2, max_size=30))
def test_at_its_own_rate_a_trace_is_replayed_to_the_bit(times: list[float]):
    times = sorted(times)
    assume(times[-1] - times[0] > 1e-9)
    with tempfile.TemporaryDirectory() as folder:
        scenario = trace(Path(folder), list(times))
        recorded = traces.read_trace(scenario.removeprefix("file:"))
        assert replayed(scenario, recorded.rate) == [time - times[0] for time in times]


def test_a_trace_whose_requests_all_but_coincide_has_no_rate(tmp_path: Path):
    with pytest.raises(ConfigError, match="rate"):
        replayed(trace(tmp_path, [0.0, 5e-324]), math.inf)


def test_the_warm_up_before_a_trace_is_poisson_and_the_trace_begins_with_the_window(tmp_path: Path):
    times = replayed(trace(tmp_path, [0.0, 1.0, 2.0]), 2.0, warmup=500.0)
    assert times[-3:] == [500.0, 500.5, 501.0]
    assert len(times) == pytest.approx(1000, rel=0.1)


@pytest.mark.parametrize("times", [[1.0], [2.0, 2.0], [1.0, 3.0, 2.0], [1.0, None, 2.0]])
def test_times_that_cannot_be_replayed_are_refused(tmp_path: Path, times: list[float | None]):
    with pytest.raises(ConfigError, match="no times that can be replayed"):
        replayed(trace(tmp_path, times), 1.0)


def test_only_a_trace_has_times_to_replay():
    with pytest.raises(ConfigError, match="file:PATH"):
        replayed("D(5,5)", 1.0)


def test_a_conversation_has_no_rate():
    with pytest.raises(ConfigError, match="cannot be driven at a rate"):
        arrivals.check(Workload((LoadPoint("C(3,100,20)", rate=1.0),)))


def test_traces_with_times_name_a_load_themselves(tmp_path: Path):
    timed = trace(tmp_path, [0.0, 1.0])
    assert arrivals.are_timed_traces([timed], None)
    assert arrivals.are_timed_traces([timed, timed], "trace")
    assert not arrivals.are_timed_traces([timed], "poisson")
    assert not arrivals.are_timed_traces([timed, "D(5,5)"], None)
    assert not arrivals.are_timed_traces([], None)
    assert not arrivals.are_timed_traces([trace(tmp_path, [0.0, None])], None)


def test_a_trace_is_over_when_all_its_requests_were_due(tmp_path: Path):
    point = LoadPoint(trace(tmp_path, [0.0, 1.0, 2.0]), rate=1.0)
    workload = Workload((point,), arrival="trace")
    assert arrivals.trace_end_reason(point, workload, 3) == "the trace ended with its 3 requests"
    assert arrivals.trace_end_reason(point, workload, 2) is None
    assert arrivals.trace_end_reason(point, replace(workload, arrival="poisson"), 3) is None
    assert arrivals.trace_end_reason(LoadPoint(point.scenario, concurrency=1), workload, None) is None


def test_the_burst_of_a_trace_is_its_busiest_second_within_the_window(tmp_path: Path):
    point = LoadPoint(trace(tmp_path, [0.0, 1.0, 1.5, 1.5, 2.6, 9.0, 9.0, 9.0, 9.0, 9.0]), rate=1.0)
    workload = Workload((point,), arrival="trace", warmup=0.0, duration=8.0)
    assert arrivals.burst_size(point, workload) == 3
    assert arrivals.burst_size(point, replace(workload, duration=20.0)) == 5
    assert arrivals.burst_size(point, replace(workload, arrival="poisson")) == 0


# shares of several workers, and what is due


@given(st.integers(1, 5), st.sampled_from(["constant", "poisson", "gamma:0.5"]), st.floats(0, 3))
def test_the_shares_of_all_workers_are_the_whole_schedule(parts: int, arrival: str, warmup: float):
    point = LoadPoint("D(5,5)", rate=10.0)
    workload = Workload((point,), arrival=arrival, warmup=warmup)

    def first(part: int, parts: int) -> list[float]:
        share = arrivals.worker_share(arrivals.offsets(point, workload), warmup, part, parts)
        return list(takewhile(lambda offset: offset < 6.0, share))

    shares = [first(part, parts) for part in range(parts)]
    assert sorted(time for share in shares for time in share) == first(0, 1)
    windows = [sum(time >= warmup for time in share) for share in shares]
    assert max(windows) - min(windows) <= 1


def test_what_is_due_is_what_the_schedule_puts_into_the_window():
    point = LoadPoint("D(5,5)", rate=10.0)
    workload = Workload((point,), arrival="constant", warmup=2.05)
    assert arrivals.count_in_window(point, workload, 3.0) == 30
    assert arrivals.count_in_window(point, replace(workload, max_requests=7), 3.0) == 7
