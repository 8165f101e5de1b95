"""How many worker processes drive a load point: one, until its load exceeds what one core can drive."""

from __future__ import annotations

import os

from autotuner.core import LoadPoint, Workload

STREAMS_PER_WORKER = 2048
"""The largest load with a target in benchmarks/load/accuracy.py: on one core a TTFT error of 2 ms mean, 10 ms p99."""

REQUESTS_PER_WORKER = 1000.0
"""Requests/s: about what those streams send there, with responses of 100 tokens at 20 ms each."""


def choose_worker_count(point: LoadPoint, workload: Workload) -> int:
    """Number of workers that share `point`: `workload.workers`, else what its load needs, up to half of the cores.

    At most one worker per user, per request, and per request in flight where those are limited.
    """
    if workload.workers is not None:
        count = workload.workers
    else:
        load = (point.concurrency or 0) / STREAMS_PER_WORKER + (point.rate or 0.0) / REQUESTS_PER_WORKER
        count = min(-int(-load // 1), _available_cores() // 2)
    limits = (point.concurrency, workload.max_in_flight if point.rate else None, workload.max_requests)
    return max(1, min([count, *(limit for limit in limits if limit is not None)]))


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
