"""Arrival times of an open loop, as offsets from its start, so that lateness never accumulates."""

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
"""Prefixes of non-stationary arrivals: a part does not represent the whole, so they are driven to their end."""

_RAMP_RANGE = re.compile(r"([0-9.]+)-([0-9.]+)")


def check(workload: Workload) -> None:
    """ConfigError if a load point's scenario or arrival process is invalid."""
    for point in workload.load_points:
        scenario = scenarios.parse(point.scenario)
        if point.rate is not None:
            if isinstance(scenario, scenarios.ConversationScenario):
                raise ConfigError(
                    f"Scenario '{scenario}' cannot be driven at a rate.",
                    why="A turn can only be sent when the answer before it has arrived.",
                    remedy="Give a concurrency instead: the number of simultaneous conversations.",
                )
            next(offsets(point, workload), None)


def offsets(point: LoadPoint, workload: Workload) -> Iterator[float]:
    """Yield the arrival times of an open loop in seconds from its start, at a mean rate of `point.rate` per second.

    Equal load points and seeds give equal times. The window begins at `workload.warmup`. Only a trace
    comes to an end. ConfigError when the arrival process is unknown or the trace has no usable times.
    """
    assert point.rate is not None, "a closed loop has no schedule"
    if not 0 < point.rate < math.inf:
        raise ConfigError(
            f"The request rate {point.rate:g} is not a positive number.",
            remedy="A trace whose requests all arrive at once has no rate of its own: give --rate.",
        )
    rng = Random(f"{workload.seed} {point} arrivals")
    kind, _, argument = workload.arrival.partition(":")
    if kind == "ramp":
        return _ramp_offsets(point.rate, _parse_ramp(argument, workload.arrival), workload, rng)
    if workload.arrival == TRACE:
        return _trace_offsets(_scaled_trace_times(point), workload.warmup, _gamma_offsets(point.rate, 1.0, rng))
    return steady_offsets(point.rate, workload.arrival, rng)


def steady_offsets(rate: float, arrival: str, rng: Random) -> Iterator[float]:
    """Yield endless arrival times in seconds from 0 at a steady mean rate: constant, poisson or gamma.

    `gamma:SHAPE` has gamma-distributed gaps: a shape below 1 is burstier than Poisson, above 1 smoother.
    """
    if not rate > 0:
        raise ConfigError(f"The request rate {rate:g} is not positive.")
    kind, _, argument = arrival.partition(":")
    if kind == "constant" and not argument:
        return _constant_offsets(rate)
    if kind == "poisson" and not argument:
        return _gamma_offsets(rate, 1.0, rng)
    if kind == "gamma":
        return _gamma_offsets(rate, _parse_gamma_shape(argument, arrival), rng)
    raise ConfigError(unknown_name_message("arrival", arrival, ARRIVAL_FORMS))


def are_timed_traces(scenario_texts: Sequence[str], arrival: str | None) -> bool:
    """Whether the scenarios bring their own load: traces with timestamps, and no other `arrival` is requested."""
    traces = arrival in (None, TRACE) and all(text.startswith("file:") for text in scenario_texts)
    return bool(scenario_texts) and traces and all(map(_has_timestamps, scenario_texts))


def limit_to_trace(point: LoadPoint, workload: Workload) -> Workload:
    """Limit `max_requests` to the rows of the trace that is replayed, if one is."""
    trace = _replayed_trace(point, workload)
    if trace is None:
        return workload
    rows = len(trace.request_lengths)
    return replace(workload, max_requests=min(workload.max_requests or rows, rows))


def trace_end_reason(point: LoadPoint, workload: Workload, due: int | None) -> str | None:
    """The stop reason when all requests of a replayed trace were due; else None."""
    trace = _replayed_trace(point, workload)
    if trace is None or due != len(trace.request_lengths):
        return None
    return f"the trace ended with its {due} requests"


def worker_share(all_offsets: Iterator[float], warmup: float, worker_index: int, worker_count: int) -> Iterator[float]:
    """Yield one worker's arrivals: every `worker_count`-th of warm-up and of window, each counted on its own."""
    counts = [0, 0]
    for offset in all_offsets:
        in_window = offset >= warmup
        if counts[in_window] % worker_count == worker_index:
            yield offset
        counts[in_window] += 1


def count_in_window(point: LoadPoint, workload: Workload, duration: float) -> int:
    """Number of requests due in the first `duration` seconds of the window, up to `max_requests`."""
    begin, end = workload.warmup, workload.warmup + duration
    due = 0
    for offset in offsets(point, workload):
        if offset >= end or due == workload.max_requests:
            break
        due += offset >= begin
    return due


def burst_size(point: LoadPoint, workload: Workload) -> int:
    """Arrivals in the busiest second of a replayed trace; 0 for other arrivals."""
    if _replayed_trace(point, workload) is None:
        return 0
    times = list(takewhile(lambda offset: offset < workload.warmup + workload.duration, offsets(point, workload)))
    return max((bisect_right(times, time + 1.0) - index for index, time in enumerate(times)), default=0)


def _has_timestamps(text: str) -> bool:
    scenario = scenarios.parse(text)
    return isinstance(scenario, scenarios.TraceReplay) and bool(scenario.timestamps)


def _replayed_trace(point: LoadPoint, workload: Workload) -> scenarios.TraceReplay | None:
    scenario = scenarios.parse(point.scenario)
    is_replayed = point.rate is not None and workload.arrival == TRACE
    return scenario if is_replayed and isinstance(scenario, scenarios.TraceReplay) else None


def _parse_gamma_shape(text: str, arrival: str) -> float:
    try:
        shape = float(text)
    except ValueError:
        shape = math.nan
    if not 0 < shape < math.inf:
        raise ConfigError(f"The arrival '{arrival}' needs a positive shape, as in 'gamma:0.5'.")
    return shape


def _parse_ramp(text: str, arrival: str) -> tuple[float, float]:
    match = _RAMP_RANGE.fullmatch(text)
    try:
        start, end = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
    except ValueError:
        start = end = 0.0
    if not (start > 0 and end > 0):
        raise ConfigError(f"The arrival '{arrival}' needs two positive rates, as in 'ramp:2-10'.")
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
    """Poisson arrivals whose rate changes linearly over the window, from `ends[0]` to `ends[1]`, scaled to mean `rate`.

    By time change: arrivals of a unit-rate process are mapped to when the cumulative rate reaches them.
    """
    first, last = (2 * rate * end / sum(ends) for end in ends)
    slope = (last - first) / workload.duration
    warmup_arrivals, window_arrivals = first * workload.warmup, rate * workload.duration
    for expected in _gamma_offsets(1.0, 1.0, rng):
        in_window = expected - warmup_arrivals
        if in_window < 0:
            yield expected / first
        elif in_window < window_arrivals:
            # the root of first x t + slope x t^2 / 2 = in_window, in the form that is stable for a slope near 0
            yield workload.warmup + 2 * in_window / (first + math.sqrt(first * first + 2 * slope * in_window))
        else:
            yield workload.warmup + workload.duration + (in_window - window_arrivals) / last


def _trace_offsets(times: Iterator[float], warmup: float, warmup_offsets: Iterator[float]) -> Iterator[float]:
    """Seconds from the start of the warm-up: generated arrivals during it, then the recorded `times` of the window."""
    for offset in warmup_offsets:
        if offset >= warmup:
            break
        yield offset
    for time in times:
        yield warmup + time


def _scaled_trace_times(point: LoadPoint) -> Iterator[float]:
    """A trace's times from its first row on, stretched to the load point's rate; exact at the trace's own rate."""
    scenario = scenarios.parse(point.scenario)
    if not isinstance(scenario, scenarios.TraceReplay):
        raise ConfigError(
            f"Scenario '{point.scenario}' has no times for the arrival 'trace'.",
            remedy="Use a scenario file:PATH, or another arrival.",
        )
    assert point.rate is not None
    stretch = scenario.rate / point.rate
    return (time * stretch for time in scenario.timestamps)
