"""The metrics of a load point: latencies of the requests due in its window, and steady-state rates."""

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
    """All metrics of one load point: seconds, tokens/s, requests/s."""
    open_loop = observation.load_point.rate is not None
    records = records_in_window(observation)
    successes = [record for record in records if error_class(record) is None]
    error_counts = Counter(name for record in records if (name := error_class(record)) is not None)
    errors, in_flight = error_counts.total(), observation.load_point.concurrency or mean_in_flight(observation)
    tpot = request_distribution(
        [value for record in successes if (value := record.tpot) is not None], errors, in_flight
    )
    rates = steady_rates(observation, slo, saturated=is_saturated(observation))
    rate_values = {name: rate.value if isinstance(rate, Estimate) else rate for name, rate in rates.items()}
    return Metrics(
        requests=len(records),
        ttft=request_distribution([record.chunk_times[0] - record.sent for record in successes], errors, in_flight),
        ttfo=request_distribution(
            [value for record in successes if (value := record.ttfo) is not None], errors, in_flight
        ),
        tpot=tpot,
        itl=token_distribution([_token_gaps(record) for record in successes if record.tpot is not None]),
        chunk_gap=token_distribution([_chunk_gaps(record) for record in successes]),
        e2e=request_distribution([record.chunk_times[-1] - record.sent for record in successes], errors, in_flight),
        interactivity=1 / tpot.mean if tpot and tpot.mean > 0 else None,
        attainment=attainment(records, slo, in_flight, open_loop=open_loop),
        errors=dict(sorted(error_counts.items())),
        ttft_from_schedule=_latency_from_schedule(successes, 0, errors, in_flight) if open_loop else None,
        e2e_from_schedule=_latency_from_schedule(successes, -1, errors, in_flight) if open_loop else None,
        intervals={
            name: (rate.lower, rate.upper)
            for name, rate in rates.items()
            if isinstance(rate, Estimate) and rate.upper is not None
        },
        without_tpot=sum(record.tpot is None for record in successes),
        token_counts=Counter(record.token_counts for record in successes if record.token_counts is not None),
        **rate_values,
    )


def attainment(records: Sequence[RequestRecord], slo: Slo, in_flight: float, *, open_loop: bool) -> Share | None:
    """The share of requests that met every target on single requests; None without requests.

    Errors count as misses. Requests without a metric that a target is on, such as TPOT, are left out.
    """
    terms = request_terms(slo)
    met_targets = [
        False if error_class(record) is not None else is_good(record, terms, open_loop=open_loop) for record in records
    ]
    good = np.array([value for value in met_targets if value is not None], dtype=np.float64)
    if not len(good):
        return None
    return wilson_share(int(good.sum()), len(good), BatchMeans(len(good), in_flight).effective_sample_size(good))


def _chunk_gaps(record: RequestRecord) -> Samples:
    return np.diff(np.asarray(record.chunk_times, dtype=np.float64))


def _token_gaps(record: RequestRecord) -> Samples:
    """Inter-token latencies: each gap between chunks divided evenly among the tokens of the later chunk."""
    tokens = np.asarray(record.chunk_tokens[1:], dtype=np.int64)
    gaps: Samples = np.repeat(_chunk_gaps(record) / np.maximum(tokens, 1), tokens)
    return gaps


def _latency_from_schedule(
    records: Sequence[RequestRecord], chunk_index: int, errors: int, in_flight: float
) -> Distribution | None:
    return request_distribution(
        [record.chunk_times[chunk_index] - record.scheduled for record in records], errors, in_flight
    )
