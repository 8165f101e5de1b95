"""The engine's counters as Prometheus text."""

from __future__ import annotations

from itertools import accumulate

from autotuner.simulate.realtime import LATENESS_BOUNDS_SECONDS, RealtimeEngine

METRIC_PREFIX = "autotune_sim_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(engine: RealtimeEngine) -> bytes:
    """Write all metrics in the text exposition format."""
    scheduler = engine.scheduler
    counters, pool = scheduler.counters, scheduler.block_pool
    lines: list[str] = []
    for name, what, value in (
        ("prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.", counters.prefix_query_tokens),
        ("prefix_cache_hits_total", "Prompt tokens found in the prefix cache.", counters.prefix_hit_tokens),
        ("num_preemptions_total", "Requests sent back to the queue for lack of blocks.", counters.preemptions),
        ("prompt_tokens_total", "Prompt tokens computed.", counters.prefill_tokens),
        ("generation_tokens_total", "Output tokens generated.", counters.generated_tokens),
        ("requests_finished_total", "Requests that got all their tokens.", counters.finished_requests),
        ("requests_aborted_total", "Requests whose client left.", counters.aborted_requests),
        ("iterations_total", "Iterations run.", counters.steps),
    ):
        lines += _metric_lines(name, what, "counter", f"{value}")
    for name, what, level in (
        ("num_requests_running", "Requests in the batch.", len(scheduler.running)),
        ("num_requests_waiting", "Requests in the queue.", len(scheduler.waiting)),
        ("kv_cache_usage_perc", "Share of KV cache blocks held, 1 is all.", pool.used_blocks / pool.capacity),
    ):
        lines += _metric_lines(name, what, "gauge", f"{level:g}")
    return "\n".join([*lines, *_lateness_histogram(engine), ""]).encode()


def _metric_lines(name: str, help_text: str, kind: str, value: str) -> list[str]:
    return [
        f"# HELP {METRIC_PREFIX}{name} {help_text}",
        f"# TYPE {METRIC_PREFIX}{name} {kind}",
        f"{METRIC_PREFIX}{name} {value}",
    ]


def _lateness_histogram(engine: RealtimeEngine) -> list[str]:
    name = f"{METRIC_PREFIX}send_lateness_seconds"
    counts = list(accumulate(engine.lateness.counts))
    buckets = [
        f'{name}_bucket{{le="{bound:g}"}} {count}'
        for bound, count in zip(LATENESS_BOUNDS_SECONDS, counts, strict=False)
    ]
    return [
        f"# HELP {name} From the end of an iteration to the last of its tokens being sent.",
        f"# TYPE {name} histogram",
        *buckets,
        f'{name}_bucket{{le="+Inf"}} {counts[-1]}',
        f"{name}_sum {engine.lateness.total_seconds:g}",
        f"{name}_count {counts[-1]}",
    ]
