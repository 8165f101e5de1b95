"""Steady-state rates with their intervals.

Closed loops run in waves, so that counting tokens between two instants is biased by partial waves. Little's
law has no such edge effects: the request rate is the mean number in flight over the mean residence time. An
open loop below saturation has the throughput of its arrivals. Without a steady state, tokens are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from autotuner.core import Observation, RequestRecord
from autotuner.experiment import Slo
from autotuner.scoring.batches import BatchMeans, Estimate
from autotuner.scoring.slo import is_good, request_terms
from autotuner.scoring.window import error_class, mean_in_flight, records_in_window, window_seconds

RATE_METRICS = ("output_throughput", "throughput", "request_throughput", "goodput", "token_goodput")
"""Fields of Metrics in 1/s: output tokens, prompt and output tokens, requests, good requests, their output tokens."""

Amounts = NDArray[np.float64]


def steady_rates(observation: Observation, slo: Slo, *, saturated: bool) -> Mapping[str, Estimate | float]:
    """Every rate by name; plain numbers without an interval where there is no steady state."""
    records = records_in_window(observation)
    may_be_steady = bool(records) and observation.abort_reason is None and not observation.nonstationary_arrivals
    if not may_be_steady or (saturated and observation.load_point.rate is not None):
        return _counted_rates(observation, slo)
    contributions = request_amounts(records, slo, open_loop=observation.load_point.rate is not None)
    in_flight = mean_in_flight(observation)
    batches = BatchMeans(len(records), observation.load_point.concurrency or in_flight)
    if observation.load_point.rate is not None:
        arrival_rate = observation.load_point.rate
        return {name: batches.mean(amount).scaled(arrival_rate) for name, amount in contributions.items()}
    seconds = residence_times(records)
    if not seconds.sum():
        return _counted_rates(observation, slo)
    return {name: batches.ratio(amount, seconds).scaled(in_flight) for name, amount in contributions.items()}


def residence_times(records: Sequence[RequestRecord]) -> Amounts:
    """Seconds each request was in flight."""
    return np.array([record.finished - record.sent for record in records])


def request_amounts(records: Sequence[RequestRecord], slo: Slo, *, open_loop: bool) -> dict[str, Amounts]:
    """What each request contributes to each of RATE_METRICS; a prompt counts when its request had no error."""
    terms = request_terms(slo)
    success_flags = [error_class(record) is None for record in records]
    is_good_flags = [
        bool(ok and is_good(record, terms, open_loop=open_loop))
        for record, ok in zip(records, success_flags, strict=True)
    ]
    output = np.array([record.output_token_count for record in records], dtype=np.float64)
    prompt = np.array([record.prompt_token_count for record in records], dtype=np.float64)
    succeeded, good = np.array(success_flags, dtype=np.float64), np.array(is_good_flags, dtype=np.float64)
    return dict(
        zip(
            RATE_METRICS,
            (output, output + prompt * succeeded, succeeded, good, output * good),
            strict=True,
        )
    )


def _counted_rates(observation: Observation, slo: Slo) -> dict[str, float]:
    """The tokens and requests received inside the window, whenever they started, over its length.

    A prompt counts when the request's first token arrives, a request when its last one does.
    """
    start, end = observation.window
    open_loop = observation.load_point.rate is not None
    terms = request_terms(slo)
    totals = dict.fromkeys(RATE_METRICS, 0.0)
    for record in observation.records:
        times = record.chunk_times
        if not len(times) or times[-1] < start or times[0] > end:
            continue
        success = error_class(record) is None
        good = bool(success and is_good(record, terms, open_loop=open_loop))
        tokens = _tokens_between(record, start, end)
        completed = success and times[-1] <= end
        totals["output_throughput"] += tokens
        totals["throughput"] += tokens + (record.prompt_token_count if times[0] >= start else 0)
        totals["request_throughput"] += completed
        totals["goodput"] += completed and good
        totals["token_goodput"] += tokens * good
    seconds = window_seconds(observation)
    return {name: total / seconds for name, total in totals.items()}


def _tokens_between(record: RequestRecord, start: float, end: float) -> float:
    """Output tokens received in [start, end], scaled where chunks do not show how many tokens they carry."""
    times, chunk_total = record.chunk_times, sum(record.chunk_tokens)
    if start <= times[0] and times[-1] <= end:
        received = chunk_total
    else:
        received = sum(tokens for time, tokens in zip(times, record.chunk_tokens, strict=True) if start <= time <= end)
    # The server's own count is right where chunks do not show how many tokens they carry.
    scale = record.output_token_count / chunk_total if record.error is None and chunk_total else 1.0
    return received * scale
