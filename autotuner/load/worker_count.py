"""How many processes drive a load point: one, until its load is more than one core carries."""

from __future__ import annotations

import os

from autotuner.core import LoadPoint, Workload

STREAMS_PER_WORKER = 2048
"""The most that benchmarks/load/accuracy.py has a target for on one core: 2 ms mean and 10 ms p99 error of TTFT."""

REQUESTS_PER_WORKER = 1000.0
"""Requests/s: about what those streams ask for there, with answers of 100 tokens at 20 ms each."""


def choose_worker_count(point: LoadPoint, workload: Workload) -> int:
    """Return how many workers share `point`: as asked for, else as many as it needs and the machine can spare.

    Half of the cores are left to everything else. No worker is without a lane, or without a
    request in flight where those are bounded.
    """
    if workload.workers is not None:
        wanted = workload.workers
    else:
        load = (point.concurrency or 0) / STREAMS_PER_WORKER + (point.rate or 0.0) / REQUESTS_PER_WORKER
        wanted = min(-int(-load // 1), _available_cores() // 2)
    most = (point.concurrency, workload.max_in_flight if point.rate else None, workload.max_requests)
    return max(1, min([wanted, *(limit for limit in most if limit is not None)]))


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
