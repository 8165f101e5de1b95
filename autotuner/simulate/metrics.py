"""The engine's counters as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from autotuner.simulate.realtime import LATENESS_BOUNDS_SECONDS, RealtimeEngine

METRIC_PREFIX = "autotune_sim_"
SHARE_SUFFIX = "_perc"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(engine: RealtimeEngine) -> bytes:
    """Render all metrics in the Prometheus text exposition format."""
    scheduler = engine.scheduler
    counters, pool = scheduler.counters, scheduler.block_pool
    lines: list[str] = []
    for name, help_text, value in (
        ("prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.", counters.prefix_query_tokens),
        ("prefix_cache_hits_total", "Prompt tokens that were in the prefix cache.", counters.prefix_hit_tokens),
        ("num_preemptions_total", "Requests preempted for lack of KV cache blocks.", counters.preemptions),
        ("prompt_tokens_total", "Prompt tokens computed.", counters.prefill_tokens),
        ("generation_tokens_total", "Output tokens generated.", counters.generated_tokens),
        ("requests_finished_total", "Requests that finished.", counters.finished_requests),
        ("requests_aborted_total", "Requests whose client disconnected.", counters.aborted_requests),
        ("iterations_total", "Iterations run.", counters.steps),
    ):
        lines += _metric_lines(name, help_text, "counter", f"{value}")
    for name, help_text, level in (
        ("num_requests_running", "Requests in the batch.", len(scheduler.running)),
        ("num_requests_waiting", "Requests in the queue.", len(scheduler.waiting)),
        ("kv_cache_usage_perc", "Share of KV cache blocks in use, from 0 to 1.", pool.used_blocks / pool.capacity),
        ("kv_cache_tokens", "Tokens that the KV cache holds.", pool.capacity * scheduler.limits.block_size),
    ):
        lines += _metric_lines(name, help_text, "gauge", f"{level:.10g}")
    return "\n".join([*lines, *_lateness_histogram(engine), ""]).encode()


def add_samples(texts: Sequence[str]) -> str:
    """The metrics of several servers as those of one: equal samples added up, and the mean of shares."""
    totals: dict[str, float] = {}
    lines: list[str] = []
    for line in (line for text in texts for line in text.splitlines() if line):
        name, _, value = line.rpartition(" ")
        key = line if line.startswith("#") else name
        if key not in lines:
            lines.append(key)
        if key == name:
            totals[name] = totals.get(name, 0.0) + float(value) / (len(texts) if name.endswith(SHARE_SUFFIX) else 1)
    return "".join(f"{line} {totals[line]:.15g}\n" if line in totals else f"{line}\n" for line in lines)


def _metric_lines(name: str, help_text: str, metric_type: str, value: str) -> list[str]:
    return [
        f"# HELP {METRIC_PREFIX}{name} {help_text}",
        f"# TYPE {METRIC_PREFIX}{name} {metric_type}",
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
        f"# HELP {name} Seconds from the simulated end of an iteration until its last token was sent.",
        f"# TYPE {name} histogram",
        *buckets,
        f'{name}_bucket{{le="+Inf"}} {counts[-1]}',
        f"{name}_sum {engine.lateness.total_seconds:g}",
        f"{name}_count {counts[-1]}",
    ]
