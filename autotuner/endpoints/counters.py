"""The engine's own Prometheus metrics under engine-neutral names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from autotuner.endpoints.client import Client, NoAnswerError
from autotuner.endpoints.tls import TlsTrust

_METRIC_NAMES = {
    "prefix_cache_queries": (
        "vllm:prefix_cache_queries_total",
        "vllm:gpu_prefix_cache_queries_total",
        "sglang:prompt_tokens_total",
        "autotune_sim_prefix_cache_queries_total",
    ),
    "prefix_cache_hits": (
        "vllm:prefix_cache_hits_total",
        "vllm:gpu_prefix_cache_hits_total",
        "sglang:cached_tokens_total",
        "autotune_sim_prefix_cache_hits_total",
    ),
    "preemptions": (
        "vllm:num_preemptions_total",
        "sglang:num_retracted_requests_total",
        "sglang:num_retracted_reqs_total",
        "autotune_sim_num_preemptions_total",
    ),
    "running": ("vllm:num_requests_running", "sglang:num_running_reqs", "autotune_sim_num_requests_running"),
    "waiting": ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "autotune_sim_num_requests_waiting"),
}
"""Neutral name: the engines' names, newest first. Prefix-cache counters are in tokens."""

_GAUGES = ("running", "waiting")
_SAMPLE_LINE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{.*\})?\s+(\S+)(?:\s+-?\d+)?\s*")


def read_counters(
    url: str, *, headers: Mapping[str, str] | None = None, tls: TlsTrust | None = None, timeout: float = 2.0
) -> dict[str, float]:
    """Read the server's /metrics; empty where the server has none.

    prefix_cache_queries, prefix_cache_hits (tokens), preemptions, running, waiting (requests), each
    summed over the engine's label sets, and only those the engine reports.
    """
    try:
        with Client(url, headers, tls) as client:
            answer = client.ask_root("/metrics", timeout=timeout)
            if 300 <= answer.status < 400:  # where metrics are an application mounted at this path
                answer = client.ask_root("/metrics/", timeout=timeout)
    except NoAnswerError:
        return {}
    return parse_prometheus(answer.text) if answer.status == 200 else {}


def parse_prometheus(text: str) -> dict[str, float]:
    """Read Prometheus text; lines that are not samples are skipped."""
    sums: dict[str, float] = {}
    for line in text.splitlines():
        match = _SAMPLE_LINE.fullmatch(line)
        if match is None:
            continue
        try:
            sums[match[1]] = sums.get(match[1], 0.0) + float(match[2])
        except ValueError:
            continue
    return {
        neutral: next(sums[name] for name in names if name in sums)
        for neutral, names in _METRIC_NAMES.items()
        if any(name in sums for name in names)
    }


def counter_deltas(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """How far each counter rose; gauges, and counters that fell because the server restarted, are left out."""
    return {
        name: after[name] - before[name]
        for name in before
        if name not in _GAUGES and name in after and after[name] >= before[name]
    }
