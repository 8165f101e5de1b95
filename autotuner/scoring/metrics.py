"""One load point's request records in figures: latencies of the requests that started in the window, steady rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from autotuner.core import Distribution, Metrics, Observation, RequestRecord, Share
from autotuner.experiment import Slo
from autotuner.scoring.batches import BatchMeans, Estimate, Samples
from autotuner.scoring.distribution import request_distribution, token_distribution
from autotuner.scoring.intervals import wilson_share
from autotuner.scoring.slo import is_good, request_terms
from autotuner.scoring.throughput import steady_rates
from autotuner.scoring.validity import is_saturated
from autotuner.scoring.window import error_class, mean_in_flight, records_in_window


def summarize(observation: Observation, slo: Slo) -> Metrics:
    """All figures of one load point: seconds, tokens/s, requests/s."""
    open_loop = observation.load_point.rate is not None
    started = records_in_window(observation)
    answered = [record for record in started if error_class(record) is None]
    failures = Counter(name for record in started if (name := error_class(record)) is not None)
    errors, crowd = failures.total(), observation.load_point.concurrency or mean_in_flight(observation)
    tpot = request_distribution([value for record in answered if (value := record.tpot) is not None], errors, crowd)
    flow = steady_rates(observation, slo, saturated=is_saturated(observation))
    plain = {name: rate.value if isinstance(rate, Estimate) else rate for name, rate in flow.items()}
    return Metrics(
        requests=len(started),
        ttft=request_distribution([record.chunk_times[0] - record.sent for record in answered], errors, crowd),
        ttfo=request_distribution([value for record in answered if (value := record.ttfo) is not None], errors, crowd),
        tpot=tpot,
        itl=token_distribution([_token_gaps(record) for record in answered]),
        chunk_gap=token_distribution([_chunk_gaps(record) for record in answered]),
        e2e=request_distribution([record.chunk_times[-1] - record.sent for record in answered], errors, crowd),
        interactivity=1 / tpot.mean if tpot and tpot.mean > 0 else None,
        attainment=attainment(started, slo, crowd, open_loop=open_loop),
        errors=dict(sorted(failures.items())),
        ttft_from_schedule=_latency_from_schedule(answered, 0, errors, crowd) if open_loop else None,
        e2e_from_schedule=_latency_from_schedule(answered, -1, errors, crowd) if open_loop else None,
        intervals={
            name: (rate.lower, rate.upper)
            for name, rate in flow.items()
            if isinstance(rate, Estimate) and rate.upper is not None
        },
        without_tpot=sum(record.tpot is None for record in answered),
        **plain,
    )


def attainment(records: Sequence[RequestRecord], slo: Slo, in_flight: float, *, open_loop: bool) -> Share | None:
    """The share of requests that met every term single requests are held to; None of nothing.

    Errors have not met them. Requests without a figure that a term speaks of are left out.
    """
    terms = request_terms(slo)
    judged = [
        False if error_class(record) is not None else is_good(record, terms, open_loop=open_loop) for record in records
    ]
    good = np.array([met for met in judged if met is not None], dtype=np.float64)
    if not len(good):
        return None
    return wilson_share(int(good.sum()), len(good), BatchMeans(len(good), in_flight).effective_sample_size(good))


def _chunk_gaps(record: RequestRecord) -> Samples:
    return np.diff(np.asarray(record.chunk_times, dtype=np.float64))


def _token_gaps(record: RequestRecord) -> Samples:
    """Each gap between chunks spread over the tokens the later chunk carries."""
    tokens = np.asarray(record.chunk_tokens[1:], dtype=np.int64)
    spread: Samples = np.repeat(_chunk_gaps(record) / np.maximum(tokens, 1), tokens)
    return spread


def _latency_from_schedule(
    records: Sequence[RequestRecord], chunk_index: int, errors: int, in_flight: float
) -> Distribution | None:
    return request_distribution(
        [record.chunk_times[chunk_index] - record.scheduled for record in records], errors, in_flight
    )
