"""One load point's request records in figures.

Latencies count the requests that started in the window, throughput the tokens received in it; where
the window was ended early, a closed loop's throughput follows from latencies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from autotuner.core import Distribution, Metrics, Observation, RequestRecord
from autotuner.experiment import Slo
from autotuner.scoring.distribution import Samples, per_request, per_token
from autotuner.scoring.intervals import share
from autotuner.scoring.slo import is_good, request_terms
from autotuner.scoring.window import error_class, started_in_window, window_seconds


def summarize(observation: Observation, slo: Slo) -> Metrics:
    """All figures of one load point: seconds, tokens/s, requests/s."""
    open_loop = observation.load_point.rate is not None
    terms = request_terms(slo)
    started = started_in_window(observation)
    answered = [record for record in started if error_class(record) is None]
    failures = Counter(name for record in started if (name := error_class(record)) is not None)
    errors = failures.total()
    good = sum(is_good(record, terms, open_loop=open_loop) for record in answered)
    tpot = per_request([value for record in answered if (value := record.tpot) is not None], errors)
    short = observation.decided is not None and not open_loop and bool(answered)
    flow = _steady_flow(observation, started, slo) if short else _Flow(observation, slo)
    return Metrics(
        requests=len(started),
        ttft=per_request([record.chunk_times[0] - record.sent for record in answered], errors),
        ttfo=per_request([value for record in answered if (value := record.ttfo) is not None], errors),
        tpot=tpot,
        itl=per_token([_token_gaps(record) for record in answered]),
        chunk_gap=per_token([_chunk_gaps(record) for record in answered]),
        e2e=per_request([record.chunk_times[-1] - record.sent for record in answered], errors),
        interactivity=1 / tpot.mean if tpot and tpot.mean > 0 else None,
        output_throughput=flow.output_tokens / flow.seconds,
        throughput=(flow.output_tokens + flow.prompt_tokens) / flow.seconds,
        request_throughput=flow.requests / flow.seconds,
        goodput=flow.good_requests / flow.seconds,
        token_goodput=flow.good_tokens / flow.seconds,
        attainment=share(good, len(started)),
        errors=dict(sorted(failures.items())),
        ttft_from_schedule=_from_schedule(answered, 0, errors) if open_loop else None,
        e2e_from_schedule=_from_schedule(answered, -1, errors) if open_loop else None,
    )


@dataclass(frozen=True)
class _Steady:
    """Flows in 1/s."""

    output_tokens: float
    prompt_tokens: float
    requests: float
    good_requests: float
    good_tokens: float
    seconds: float = 1.0


def _steady_flow(observation: Observation, started: Sequence[RequestRecord], slo: Slo) -> _Steady:
    """The flow of a closed loop by Little's law: requests in flight over the mean time each takes.

    A window that was ended early is short against its requests, and those of equal lengths come
    in waves: tokens counted in it are those of some waves, not of a whole number of them.
    """
    terms = request_terms(slo)
    rate = (observation.load_point.concurrency or 1) / fmean(record.finished - record.sent for record in started)
    each = rate / len(started)
    answered = [record for record in started if error_class(record) is None]
    good = [record for record in answered if is_good(record, terms, open_loop=False)]
    return _Steady(
        output_tokens=each * sum(record.tokens for record in started),
        prompt_tokens=each * sum(map(_prompt_tokens, answered)),
        requests=each * len(answered),
        good_requests=each * len(good),
        good_tokens=each * sum(record.tokens for record in good),
    )


class _Flow:
    """What was received inside the window, from any request, whenever it started.

    A prompt counts when its first token arrives, a request when its last one does.
    """

    def __init__(self, observation: Observation, slo: Slo) -> None:
        start, end = observation.window
        open_loop = observation.load_point.rate is not None
        terms = request_terms(slo)
        self.seconds = window_seconds(observation)
        self.output_tokens = self.good_tokens = 0.0
        self.prompt_tokens = self.requests = self.good_requests = 0
        for record in observation.records:
            times = record.chunk_times
            if not len(times) or times[-1] < start or times[0] > end:
                continue
            answered = error_class(record) is None
            good = answered and is_good(record, terms, open_loop=open_loop)
            tokens = _tokens_between(record, start, end)
            completed = answered and times[-1] <= end
            self.output_tokens += tokens
            self.good_tokens += tokens * good
            self.requests += completed
            self.good_requests += completed and good
            if times[0] >= start:
                self.prompt_tokens += _prompt_tokens(record)


def _tokens_between(record: RequestRecord, start: float, end: float) -> float:
    times, counted = record.chunk_times, sum(record.chunk_tokens)
    if start <= times[0] and times[-1] <= end:
        received = counted
    else:
        received = sum(tokens for time, tokens in zip(times, record.chunk_tokens, strict=True) if start <= time <= end)
    # The server's own count is right where chunks hide how many tokens they carry.
    scale = record.tokens / counted if record.error is None and counted else 1.0
    return received * scale


def _prompt_tokens(record: RequestRecord) -> int:
    return record.requested_prompt if record.prompt_tokens is None else record.prompt_tokens


def _chunk_gaps(record: RequestRecord) -> Samples:
    return np.diff(np.asarray(record.chunk_times, dtype=np.float64))


def _token_gaps(record: RequestRecord) -> Samples:
    """Each gap between chunks spread over the tokens the later chunk carries."""
    tokens = np.asarray(record.chunk_tokens[1:], dtype=np.int64)
    spread: Samples = np.repeat(_chunk_gaps(record) / np.maximum(tokens, 1), tokens)
    return spread


def _from_schedule(answered: Sequence[RequestRecord], chunk: int, errors: int) -> Distribution | None:
    return per_request([record.chunk_times[chunk] - record.scheduled for record in answered], errors)
