"""Rates of the steady state, each with an interval: what a server yields, not what one window happened to hold.

Closed loops run in waves, so that tokens counted between two instants are those of some waves and
not of a whole number of them. Little's law has no edges: requests in flight over the mean time a
request takes is the rate at which requests go through. An open loop that keeps up yields what
arrives. Where there is no steady state, tokens are counted.
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
    """Every rate by name; a plain number where there is no steady state for an interval to speak of."""
    started = records_in_window(observation)
    complete = bool(started) and observation.abort_reason is None and not observation.nonstationary_arrivals
    if not complete or (saturated and observation.load_point.rate is not None):
        return _counted_rates(observation, slo)
    each = request_amounts(started, slo, open_loop=observation.load_point.rate is not None)
    concurrent = mean_in_flight(observation)
    batches = BatchMeans(len(started), observation.load_point.concurrency or concurrent)
    if observation.load_point.rate is not None:
        nominal = observation.load_point.rate
        return {name: batches.mean(amount).scaled(nominal) for name, amount in each.items()}
    seconds = residence_times(started)
    if not seconds.sum():
        return _counted_rates(observation, slo)
    return {name: batches.ratio(amount, seconds).scaled(concurrent) for name, amount in each.items()}


def residence_times(records: Sequence[RequestRecord]) -> Amounts:
    """Seconds each request was in flight."""
    return np.array([record.finished - record.sent for record in records])


def request_amounts(records: Sequence[RequestRecord], slo: Slo, *, open_loop: bool) -> dict[str, Amounts]:
    """What each request brings to each of RATES; a prompt counts when its request was answered."""
    terms = request_terms(slo)
    answered = [error_class(record) is None for record in records]
    good = [
        bool(ok and is_good(record, terms, open_loop=open_loop)) for record, ok in zip(records, answered, strict=True)
    ]
    output = np.array([record.output_token_count for record in records], dtype=np.float64)
    prompt = np.array([prompt_tokens(record) for record in records], dtype=np.float64)
    whole, met = np.array(answered, dtype=np.float64), np.array(good, dtype=np.float64)
    return dict(zip(RATE_METRICS, (output, output + prompt * whole, whole, met, output * met), strict=True))


def _counted_rates(observation: Observation, slo: Slo) -> dict[str, float]:
    """What was received inside the window, from any request, whenever it started, over its length.

    A prompt counts when its first token arrives, a request when its last one does.
    """
    start, end = observation.window
    open_loop = observation.load_point.rate is not None
    terms = request_terms(slo)
    totals = dict.fromkeys(RATE_METRICS, 0.0)
    for record in observation.records:
        times = record.chunk_times
        if not len(times) or times[-1] < start or times[0] > end:
            continue
        answered = error_class(record) is None
        good = bool(answered and is_good(record, terms, open_loop=open_loop))
        tokens = _tokens_between(record, start, end)
        completed = answered and times[-1] <= end
        totals["output_throughput"] += tokens
        totals["throughput"] += tokens + (prompt_tokens(record) if times[0] >= start else 0)
        totals["request_throughput"] += completed
        totals["goodput"] += completed and good
        totals["token_goodput"] += tokens * good
    seconds = window_seconds(observation)
    return {name: total / seconds for name, total in totals.items()}


def _tokens_between(record: RequestRecord, start: float, end: float) -> float:
    times, counted = record.chunk_times, sum(record.chunk_tokens)
    if start <= times[0] and times[-1] <= end:
        received = counted
    else:
        received = sum(tokens for time, tokens in zip(times, record.chunk_tokens, strict=True) if start <= time <= end)
    # The server's own count is right where chunks hide how many tokens they carry.
    scale = record.output_token_count / counted if record.error is None and counted else 1.0
    return received * scale


def prompt_tokens(record: RequestRecord) -> int:
    """Prompt tokens of a request: the server's count, else what was asked for."""
    return record.requested_prompt if record.prompt_tokens is None else record.prompt_tokens
