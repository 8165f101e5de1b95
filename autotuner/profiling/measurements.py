"""Raw request records -> points of a profile, with the reasons why a point must not be filed."""

from __future__ import annotations

import bisect
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from autotuner.core import Observation, RequestRecord, Source
from autotuner.profiling.points import NOT_CACHED, SATURATED, DecodeLoad, DecodePoint, PrefillLoad, PrefillPoint

MIN_REQUESTS = 3
"""Fewer requests of one prompt length make no point."""
MAX_CACHED_PREFILL_SHARE = 0.05
"""Prefill prompts are never-seen; a larger share of cached tokens means that TTFT is not that of a prefill."""
MAX_UNCACHED_TOKENS, MIN_CACHED_SHARE = 128, 0.9
"""A cached prompt may lack its last blocks: these many tokens, or this share of it, whichever is more."""
CONSISTENCY_BOUNDS = (0.93, 1.05)
"""Bounds of throughput x ITL / concurrency, by Little's law 1 where exactly that many requests decode."""
MIN_WINDOW_GAPS = 8
"""Fewer inter-token gaps of a request in the steady window say too little."""
WINDOW_PARTS = 5
"""The interval of ITL is made of the means over as many equal parts of the window."""
STUDENT_T_4 = 2.776
"""The 97.5% quantile of Student's t for WINDOW_PARTS - 1 degrees of freedom."""


def prefill_point(
    load: PrefillLoad,
    observation: Observation,
    *,
    gpus: int,
    attention_dp: int,
    source: Source,
    earlier_samples: Sequence[float] = (),
) -> PrefillPoint:
    """The TTFT of never-seen prompts; `earlier_samples` are seconds of the same prompt length that count too."""
    records = _window_records(observation)
    answered = [record for record in records if record.error is None and record.ttft is not None]
    samples = (*earlier_samples, *(record.ttft for record in answered if record.ttft is not None))
    ttft = statistics.median(samples) if samples else math.nan
    rejection = _failures_text(records, observation)
    cached = [record.cached_tokens for record in answered if record.cached_tokens is not None]
    if rejection is None and len(samples) < MIN_REQUESTS:
        rejection = f"{len(samples)} requests answered, at least {MIN_REQUESTS} are needed"
    if rejection is None and cached and sum(cached) > MAX_CACHED_PREFILL_SHARE * load.prompt_tokens * len(cached):
        rejection = "the prefix cache held a part of prompts that were never sent before"
    return PrefillPoint(
        prompt_tokens=load.prompt_tokens,
        ttft=ttft,
        interval=median_interval(samples),
        samples=samples,
        throughput_per_gpu=load.prompt_tokens / ttft / gpus * attention_dp if samples else 0.0,
        source=source,
        rejection=rejection,
    )


def decode_point(
    load: DecodeLoad, observation: Observation, *, gpus: int, kv_tokens: int, source: Source
) -> DecodePoint:
    """ITL and throughput of the window in which all requests of the load decode at once."""
    records = _window_records(observation)
    answered = [record for record in records if record.error is None and len(record.chunk_times) > 1]
    start = max((record.chunk_times[0] for record in answered), default=0.0)
    end = min((record.chunk_times[-1] for record in answered), default=0.0)
    running = _most_at_once(answered)
    means = [mean for record in answered if (mean := _mean_gap(record, start, end)) is not None]
    itl = statistics.fmean(means) if means else math.nan
    tokens = sum(_tokens_between(record, start, end) for record in answered)
    throughput = tokens / (end - start) if end > start else 0.0
    consistency = throughput * itl / load.concurrency if means else 0.0
    cached_share, preemptions = _cached_share(load, answered, observation), observation.counters.get("preemptions")
    gaps = (end - start) / itl if means else 0.0
    rejection = (
        _failures_text(records, observation)
        or _saturation(load, running, len(answered))
        or _cache_shortage(load, cached_share)
        or (f"{preemptions:.0f} preemptions" if preemptions else None)
        or (f"only {gaps:.0f} tokens of each request decoded at once" if gaps < MIN_WINDOW_GAPS else None)
        or _inconsistency(consistency)
    )
    return DecodePoint(
        prompt_tokens=load.prompt_tokens,
        output_tokens=load.output_tokens,
        concurrency=load.concurrency,
        kv_usage=kv_usage(load, kv_tokens),
        itl=itl,
        interval=_itl_interval(answered, start, end, itl),
        throughput_per_gpu=throughput / gpus,
        running=running,
        cached_share=cached_share,
        preemptions=preemptions,
        consistency=consistency,
        source=source,
        rejection=rejection,
    )


def kv_usage(load: DecodeLoad, kv_tokens: int) -> float:
    """The share of a KV cache of `kv_tokens` that the requests of a load hold on average."""
    return (load.prompt_tokens + load.output_tokens / 2) * load.concurrency / kv_tokens


def median_interval(samples: Sequence[float]) -> tuple[float, float]:
    """The widest order statistics that bound the median at 95% or, of few samples, minimum and maximum."""
    ordered, count = sorted(samples), len(samples)
    if not ordered:
        return math.nan, math.nan
    rank, below = 0, 0.5**count
    while rank + 1 < count / 2 and below + math.comb(count, rank + 1) * 0.5**count <= 0.025:
        rank += 1
        below += math.comb(count, rank) * 0.5**count
    return ordered[rank], ordered[count - 1 - rank]


def _window_records(observation: Observation) -> list[RequestRecord]:
    return [record for record in observation.records if record.index >= 0]


def _failures_text(records: Sequence[RequestRecord], observation: Observation) -> str | None:
    errors = Counter(record.error for record in records if record.error is not None)
    if not errors and not observation.abort_reason:
        return None
    if not errors:
        return observation.abort_reason
    name, _ = errors.most_common(1)[0]
    message = observation.error_messages.get(name or "", "")
    return f"{errors.total()} of {len(records)} requests failed: {name}{f' ({message})' if message else ''}"


def _saturation(load: DecodeLoad, running: int, answered: int) -> str | None:
    if answered < load.concurrency:
        return f"{answered} of {load.concurrency} requests were answered with more than one chunk"
    if running < load.concurrency:
        return f"{SATURATED}: {running} of {load.concurrency} requests ran at once"
    return None


def _cache_shortage(load: DecodeLoad, cached_share: float | None) -> str | None:
    if cached_share is None:
        return f"{NOT_CACHED}: the server does not tell how many tokens its prefix cache held"
    if is_cached(load.prompt_tokens, cached_share):
        return None
    return f"{NOT_CACHED}: the prefix cache held {cached_share:.0%} of them"


def is_cached(prompt_tokens: int, cached_share: float) -> bool:
    """Whether all but the last blocks of the prompts came from the prefix cache."""
    missing = prompt_tokens * (1 - cached_share)
    return cached_share > 0 and missing <= max(MAX_UNCACHED_TOKENS, prompt_tokens * (1 - MIN_CACHED_SHARE))


def _inconsistency(consistency: float) -> str | None:
    low, high = CONSISTENCY_BOUNDS
    if low <= consistency <= high:
        return None
    return f"throughput x ITL / requests is {consistency:.2f}, not {low} to {high}"


def _cached_share(load: DecodeLoad, records: Sequence[RequestRecord], observation: Observation) -> float | None:
    """The share of prompt tokens from the prefix cache: the least of all requests, else the engine's counters' mean."""
    cached = [record.cached_tokens for record in records]
    if cached and None not in cached:
        return min(tokens for tokens in cached if tokens is not None) / load.prompt_tokens
    hits, queries = (observation.counters.get(f"prefix_cache_{name}") for name in ("hits", "queries"))
    return hits / queries if hits is not None and queries else None


def _most_at_once(records: Sequence[RequestRecord]) -> int:
    """The most requests that were between their first and last token at one instant."""
    changes = [(record.chunk_times[0], 1) for record in records] + [(record.chunk_times[-1], -1) for record in records]
    most = current = 0
    for _, change in sorted(changes):
        current += change
        most = max(most, current)
    return most


def _bounds(record: RequestRecord, start: float, end: float) -> tuple[int, int]:
    """Positions of the first and the last chunk of a record in [start, end]."""
    times = record.chunk_times
    return bisect.bisect_left(times, start), bisect.bisect_right(times, end) - 1


def _tokens_between(record: RequestRecord, start: float, end: float) -> int:
    """Tokens that arrived in (start, end]."""
    times = record.chunk_times
    return sum(record.chunk_tokens[bisect.bisect_right(times, start) : bisect.bisect_right(times, end)])


def _mean_gap(record: RequestRecord, start: float, end: float) -> float | None:
    """Mean seconds per token between the first and the last chunk in [start, end]; None for fewer than two chunks."""
    first, last = _bounds(record, start, end)
    tokens = sum(record.chunk_tokens[first + 1 : last + 1])
    return (record.chunk_times[last] - record.chunk_times[first]) / tokens if last > first and tokens else None


def _itl_interval(records: Sequence[RequestRecord], start: float, end: float, itl: float) -> tuple[float, float]:
    """A 95% interval of the mean ITL, by batch means over equal parts of the window."""
    edges = [start + (end - start) * part / WINDOW_PARTS for part in range(WINDOW_PARTS + 1)]
    means = []
    for low, high in pairwise(edges):
        gaps = [mean for record in records if (mean := _mean_gap(record, low, high)) is not None]
        if gaps:
            means.append(statistics.fmean(gaps))
    if len(means) < WINDOW_PARTS:
        return itl, itl
    half = STUDENT_T_4 * statistics.stdev(means) / math.sqrt(len(means))
    return max(0.0, itl - half), itl + half
