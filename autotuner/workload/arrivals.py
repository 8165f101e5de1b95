"""When requests arrive in an open loop: absolute offsets, so that lateness never adds up."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from random import Random

from autotuner.core import LoadPoint, Workload
from autotuner.errors import ConfigError, unknown_name_message
from autotuner.workload import scenarios

TRACE = "trace"
ARRIVAL_FORMS = ("constant", "poisson", "gamma:SHAPE", "ramp:START-END", TRACE)
NONSTATIONARY_PREFIXES = ("ramp:", TRACE)
"""Arrivals of which no part stands for the whole: they are driven to their end."""

_RAMP_RANGE = re.compile(r"([0-9.]+)-([0-9.]+)")


def check(workload: Workload) -> None:
    """ConfigError where a load point's scenario, or the arrivals of its rate, are none."""
    for point in workload.load_points:
        scenario = scenarios.parse(point.scenario)
        if point.rate is not None:
            if isinstance(scenario, scenarios.Conversation):
                raise ConfigError(
                    f"Scenario '{scenario}' cannot be driven at a rate.",
                    why="A turn follows the answer before it, which comes when it comes.",
                    remedy="Give a concurrency: so many conversations at once.",
                )
            next(offsets(point, workload), None)


def offsets(point: LoadPoint, workload: Workload) -> Iterator[float]:
    """Yield the arrivals of an open loop in seconds from its start, at `point.rate` per second on average.

    Equal load points and seeds give equal ones. The window begins at `workload.warmup`. Only a
    trace comes to an end. ConfigError: the arrival is not one, or the trace has no usable times.
    """
    assert point.rate is not None, "a closed loop has no schedule"
    if not 0 < point.rate < math.inf:
        raise ConfigError(
            f"The request rate {point.rate:g} is not a number above 0.",
            remedy="A trace whose requests all come at once has none of its own: give --rate.",
        )
    rng = Random(f"{workload.seed} {point} arrivals")
    kind, _, text = workload.arrival.partition(":")
    if kind == "ramp":
        return _ramp_offsets(point.rate, _parse_ramp(text, workload.arrival), workload, rng)
    if workload.arrival == TRACE:
        return _trace_offsets(_scaled_trace_times(point), workload.warmup, _gamma_offsets(point.rate, 1.0, rng))
    return steady_offsets(point.rate, workload.arrival, rng)


def steady_offsets(rate: float, arrival: str, rng: Random) -> Iterator[float]:
    """Yield arrivals of a steady rate in seconds from 0, without end: constant, poisson or gamma.

    `gamma:SHAPE` has gaps of shape SHAPE: below 1 is burstier than Poisson, above 1 smoother.
    """
    if not rate > 0:
        raise ConfigError(f"The request rate {rate:g} is not above 0.")
    kind, _, text = arrival.partition(":")
    if kind == "constant" and not text:
        return _constant_offsets(rate)
    if kind == "poisson" and not text:
        return _gamma_offsets(rate, 1.0, rng)
    if kind == "gamma":
        return _gamma_offsets(rate, _parse_gamma_shape(text, arrival), rng)
    raise ConfigError(unknown_name_message("arrival", arrival, ARRIVAL_FORMS))


def are_timed_traces(texts: Sequence[str], arrival: str | None) -> bool:
    """Whether these scenarios name a load themselves: traces with a time in every row, and no other `arrival`."""
    traces = bool(texts) and arrival in (None, TRACE) and all(text.startswith("file:") for text in texts)
    return traces and all(map(_has_timestamps, texts))


def limit_to_trace(point: LoadPoint, workload: Workload) -> Workload:
    """Give a trace that is replayed no more requests than it has rows; everything else stays as it is."""
    trace = _replayed_trace(point, workload)
    if trace is None:
        return workload
    rows = len(trace.request_lengths)
    return replace(workload, max_requests=min(workload.max_requests or rows, rows))


def trace_end_reason(point: LoadPoint, workload: Workload, due: int | None) -> str | None:
    """Say why no more than `due` requests came, where the trace that is replayed has no more; else None."""
    trace = _replayed_trace(point, workload)
    return (
        f"the trace ended with its {due} requests" if trace is not None and due == len(trace.request_lengths) else None
    )


def worker_share(all_offsets: Iterator[float], warmup: float, worker_index: int, worker_count: int) -> Iterator[float]:
    """Take of each phase's arrivals every `parts`-th from `part` on, as requests are numbered in each phase."""
    seen = [0, 0]
    for offset in all_offsets:
        phase = offset >= warmup
        if seen[phase] % worker_count == worker_index:
            yield offset
        seen[phase] += 1


def count_in_window(point: LoadPoint, workload: Workload, duration: float) -> int:
    """Count the arrivals that the schedule puts into the first `seconds` of the window."""
    begin, end = workload.warmup, workload.warmup + duration
    due = 0
    for offset in offsets(point, workload):
        if offset >= end or due == workload.max_requests:
            break
        due += offset >= begin
    return due


def burst_size(point: LoadPoint, workload: Workload) -> int:
    """Count the arrivals of the busiest second, where a trace is replayed; 0 for arrivals of a rate."""
    if _replayed_trace(point, workload) is None:
        return 0
    times = list(takewhile(lambda offset: offset < workload.warmup + workload.duration, offsets(point, workload)))
    return max((bisect_right(times, time + 1.0) - place for place, time in enumerate(times)), default=0)


def _has_timestamps(text: str) -> bool:
    scenario = scenarios.parse(text)
    return isinstance(scenario, scenarios.TraceReplay) and bool(scenario.timestamps)


def _replayed_trace(point: LoadPoint, workload: Workload) -> scenarios.TraceReplay | None:
    scenario = scenarios.parse(point.scenario)
    paced = point.rate is not None and workload.arrival == TRACE
    return scenario if paced and isinstance(scenario, scenarios.TraceReplay) else None


def _parse_gamma_shape(text: str, arrival: str) -> float:
    try:
        shape = float(text)
    except ValueError:
        shape = math.nan
    if not 0 < shape < math.inf:
        raise ConfigError(f"The arrival '{arrival}' needs a shape above 0, as in 'gamma:0.5'.")
    return shape


def _parse_ramp(text: str, arrival: str) -> tuple[float, float]:
    match = _RAMP_RANGE.fullmatch(text)
    try:
        start, end = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
    except ValueError:
        start = end = 0.0
    if not (start > 0 and end > 0):
        raise ConfigError(f"The arrival '{arrival}' needs two rates above 0, as in 'ramp:2-10'.")
    return start, end


def _constant_offsets(rate: float) -> Iterator[float]:
    number = 0
    while True:
        yield number / rate
        number += 1


def _gamma_offsets(rate: float, shape: float, rng: Random) -> Iterator[float]:
    offset = 0.0
    while True:
        offset += rng.gammavariate(shape, 1 / (rate * shape))
        yield offset


def _ramp_offsets(rate: float, ends: tuple[float, float], workload: Workload, rng: Random) -> Iterator[float]:
    """Poisson arrivals whose rate goes from one end to the other over the window, `rate` on average.

    Arrivals of a unit-rate process are put where the expected number of arrivals reaches them.
    """
    first, last = (2 * rate * end / sum(ends) for end in ends)
    slope = (last - first) / workload.duration
    before, during = first * workload.warmup, rate * workload.duration
    for expected in _gamma_offsets(1.0, 1.0, rng):
        beyond = expected - before
        if beyond < 0:
            yield expected / first
        elif beyond < during:
            # the root of first x t + slope x t^2 / 2 = beyond, in the form that is stable for a slope near 0
            yield workload.warmup + 2 * beyond / (first + math.sqrt(first * first + 2 * slope * beyond))
        else:
            yield workload.warmup + workload.duration + (beyond - during) / last


def _trace_offsets(times: Iterator[float], warmup: float, steady: Iterator[float]) -> Iterator[float]:
    for offset in steady:
        if offset >= warmup:
            break
        yield offset
    for time in times:
        yield warmup + time


def _scaled_trace_times(point: LoadPoint) -> Iterator[float]:
    """Yield the times of a trace from its first row on, stretched to the load point's rate; as they are at its own."""
    scenario = scenarios.parse(point.scenario)
    if not isinstance(scenario, scenarios.TraceReplay):
        raise ConfigError(
            f"Scenario '{point.scenario}' has no times for the arrival 'trace'.",
            remedy="Use a scenario file:PATH, or another arrival.",
        )
    assert point.rate is not None
    stretch = scenario.rate / point.rate
    return (time * stretch for time in scenario.timestamps)
