"""The engine's counters as Prometheus text."""

from __future__ import annotations

from itertools import accumulate

from autotuner.simulate.realtime import LATENESS_BUCKETS, RealtimeEngine

PREFIX = "autotune_sim_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(engine: RealtimeEngine) -> bytes:
    """Write all metrics in the text exposition format."""
    scheduler = engine.scheduler
    counters, pool = scheduler.counters, scheduler.pool
    lines: list[str] = []
    for name, what, value in (
        ("prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.", counters.prefix_queries),
        ("prefix_cache_hits_total", "Prompt tokens found in the prefix cache.", counters.prefix_hits),
        ("num_preemptions_total", "Requests sent back to the queue for lack of blocks.", counters.preemptions),
        ("prompt_tokens_total", "Prompt tokens computed.", counters.prefill_tokens),
        ("generation_tokens_total", "Output tokens generated.", counters.generated_tokens),
        ("requests_finished_total", "Requests that got all their tokens.", counters.finished),
        ("requests_aborted_total", "Requests whose client left.", counters.aborted),
        ("iterations_total", "Iterations run.", counters.steps),
    ):
        lines += _metric(name, what, "counter", f"{value}")
    for name, what, level in (
        ("num_requests_running", "Requests in the batch.", len(scheduler.running)),
        ("num_requests_waiting", "Requests in the queue.", len(scheduler.waiting)),
        ("kv_cache_usage_perc", "Share of KV cache blocks held, 1 is all.", pool.in_use / pool.capacity),
    ):
        lines += _metric(name, what, "gauge", f"{level:g}")
    return "\n".join([*lines, *_lateness(engine), ""]).encode()


def _metric(name: str, what: str, kind: str, value: str) -> list[str]:
    return [f"# HELP {PREFIX}{name} {what}", f"# TYPE {PREFIX}{name} {kind}", f"{PREFIX}{name} {value}"]


def _lateness(engine: RealtimeEngine) -> list[str]:
    name = f"{PREFIX}send_lateness_seconds"
    counts = list(accumulate(engine.lateness.counts))
    buckets = [
        f'{name}_bucket{{le="{bound:g}"}} {count}' for bound, count in zip(LATENESS_BUCKETS, counts, strict=False)
    ]
    return [
        f"# HELP {name} From the end of an iteration to the last of its tokens being sent.",
        f"# TYPE {name} histogram",
        *buckets,
        f'{name}_bucket{{le="+Inf"}} {counts[-1]}',
        f"{name}_sum {engine.lateness.sum:g}",
        f"{name}_count {counts[-1]}",
    ]
