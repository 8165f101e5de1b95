"""One load point's request records in figures: latencies of the requests that started in the window, steady rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from autotuner.core import Distribution, Metrics, Observation, RequestRecord, Share
from autotuner.experiment import Slo
from autotuner.scoring.batches import Batches, Estimate, Samples
from autotuner.scoring.distribution import per_request, per_token
from autotuner.scoring.intervals import share
from autotuner.scoring.slo import is_good, request_terms
from autotuner.scoring.throughput import rates
from autotuner.scoring.validity import is_saturated
from autotuner.scoring.window import error_class, in_flight, started_in_window


def summarize(observation: Observation, slo: Slo) -> Metrics:
    """All figures of one load point: seconds, tokens/s, requests/s."""
    open_loop = observation.load_point.rate is not None
    started = started_in_window(observation)
    answered = [record for record in started if error_class(record) is None]
    failures = Counter(name for record in started if (name := error_class(record)) is not None)
    errors, crowd = failures.total(), observation.load_point.concurrency or in_flight(observation)
    tpot = per_request([value for record in answered if (value := record.tpot) is not None], errors, crowd)
    flow = rates(observation, slo, saturated=is_saturated(observation))
    plain = {name: rate.value if isinstance(rate, Estimate) else rate for name, rate in flow.items()}
    return Metrics(
        requests=len(started),
        ttft=per_request([record.chunk_times[0] - record.sent for record in answered], errors, crowd),
        ttfo=per_request([value for record in answered if (value := record.ttfo) is not None], errors, crowd),
        tpot=tpot,
        itl=per_token([_token_gaps(record) for record in answered]),
        chunk_gap=per_token([_chunk_gaps(record) for record in answered]),
        e2e=per_request([record.chunk_times[-1] - record.sent for record in answered], errors, crowd),
        interactivity=1 / tpot.mean if tpot and tpot.mean > 0 else None,
        attainment=attainment(started, slo, crowd, open_loop=open_loop),
        errors=dict(sorted(failures.items())),
        ttft_from_schedule=_from_schedule(answered, 0, errors, crowd) if open_loop else None,
        e2e_from_schedule=_from_schedule(answered, -1, errors, crowd) if open_loop else None,
        intervals={
            name: (rate.low, rate.high)
            for name, rate in flow.items()
            if isinstance(rate, Estimate) and rate.high is not None
        },
        without_tpot=sum(record.tpot is None for record in answered),
        **plain,
    )


def attainment(started: Sequence[RequestRecord], slo: Slo, in_flight: float, *, open_loop: bool) -> Share | None:
    """The share of requests that met every term single requests are held to; None of nothing.

    Errors have not met them. Requests without a figure that a term speaks of are left out.
    """
    terms = request_terms(slo)
    judged = [
        False if error_class(record) is not None else is_good(record, terms, open_loop=open_loop) for record in started
    ]
    good = np.array([met for met in judged if met is not None], dtype=np.float64)
    if not len(good):
        return None
    return share(int(good.sum()), len(good), Batches(len(good), in_flight).effective(good))


def _chunk_gaps(record: RequestRecord) -> Samples:
    return np.diff(np.asarray(record.chunk_times, dtype=np.float64))


def _token_gaps(record: RequestRecord) -> Samples:
    """Each gap between chunks spread over the tokens the later chunk carries."""
    tokens = np.asarray(record.chunk_tokens[1:], dtype=np.int64)
    spread: Samples = np.repeat(_chunk_gaps(record) / np.maximum(tokens, 1), tokens)
    return spread


def _from_schedule(answered: Sequence[RequestRecord], chunk: int, errors: int, crowd: float) -> Distribution | None:
    return per_request([record.chunk_times[chunk] - record.scheduled for record in answered], errors, crowd)
