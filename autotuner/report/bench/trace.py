"""Reduces a load point's raw records to what the plots need, so that only one load point is in memory at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autotuner.core import Observation
from autotuner.scoring.window import error_class, records_in_window

Samples = NDArray[np.float64]

MAX_BINS = 40
MIN_BIN_SECONDS = 0.25
"""Shorter bins would show single chunks."""


@dataclass(frozen=True)
class LoadPointTimeline:
    """One load point over time, in seconds on the records' clock.

    `ttft` and `e2e` are sorted samples of the window's successful requests; `errors` counts the failed ones.
    `tokens_per_second[i]` covers `bin_edges[i]` to `bin_edges[i + 1]`; `in_flight[i]` is the number of
    requests in flight at `sample_times[i]`; `failure_times` are the times at which requests failed.
    """

    window: tuple[float, float]
    ttft: Samples
    e2e: Samples
    errors: int
    bin_edges: Samples
    tokens_per_second: Samples
    sample_times: Samples
    in_flight: Samples
    failure_times: Samples


def load_point_timeline(observation: Observation) -> LoadPointTimeline:
    """Latencies of the answered requests, and output tokens/s and requests in flight over the window."""
    start, end = observation.window
    window_records = records_in_window(observation)
    answered = [record for record in window_records if error_class(record) is None]
    seconds = max(end - start, 1e-9)
    edges = np.linspace(start, start + seconds, max(1, min(MAX_BINS, int(seconds / MIN_BIN_SECONDS))) + 1)
    tokens = np.zeros(len(edges) - 1)
    for record in observation.records:
        tokens += np.histogram(record.chunk_times, edges, weights=np.asarray(record.chunk_tokens, dtype=np.float64))[0]
    times = np.linspace(start, start + seconds, 10 * MAX_BINS)
    sent = np.sort([record.sent for record in observation.records])
    finished = np.sort([record.finished for record in observation.records])
    failures = [record.finished for record in window_records if error_class(record) is not None]
    return LoadPointTimeline(
        window=(start, end),
        ttft=np.sort([record.chunk_times[0] - record.sent for record in answered]),
        e2e=np.sort([record.chunk_times[-1] - record.sent for record in answered]),
        errors=len(window_records) - len(answered),
        bin_edges=edges,
        tokens_per_second=tokens / np.diff(edges),
        sample_times=times,
        in_flight=(np.searchsorted(sent, times, "right") - np.searchsorted(finished, times, "right")).astype(float),
        failure_times=np.array([time for time in failures if start <= time <= end]),
    )
