"""What the pictures need of a load point's raw records, reduced so that one load point is in memory at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autotuner.core import Observation
from autotuner.scoring.window import error_class, records_in_window

Samples = NDArray[np.float64]

MAX_BINS = 40
MIN_BIN_SECONDS = 0.25
"""Seconds: shorter ones show single chunks."""


@dataclass(frozen=True)
class LoadPointTimeline:
    """One load point over time, in seconds on the records' clock.

    `ttft` and `e2e` are sorted, of answered requests of the window; `errors` counts the others.
    `tokens_per_second[i]` is what was received between `edges[i]` and `edges[i + 1]`;
    `in_flight[i]` how many requests were on their way at `times[i]`; `failed_at` when requests failed.
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
    """Reduce a load point's records."""
    start, end = observation.window
    started = records_in_window(observation)
    answered = [record for record in started if error_class(record) is None]
    seconds = max(end - start, 1e-9)
    edges = np.linspace(start, start + seconds, max(1, min(MAX_BINS, int(seconds / MIN_BIN_SECONDS))) + 1)
    tokens = np.zeros(len(edges) - 1)
    for record in observation.records:
        tokens += np.histogram(record.chunk_times, edges, weights=np.asarray(record.chunk_tokens, dtype=np.float64))[0]
    times = np.linspace(start, start + seconds, 10 * MAX_BINS)
    sent = np.sort([record.sent for record in observation.records])
    finished = np.sort([record.finished for record in observation.records])
    failed = [record.finished for record in started if error_class(record) is not None]
    return LoadPointTimeline(
        window=(start, end),
        ttft=np.sort([record.chunk_times[0] - record.sent for record in answered]),
        e2e=np.sort([record.chunk_times[-1] - record.sent for record in answered]),
        errors=len(started) - len(answered),
        bin_edges=edges,
        tokens_per_second=tokens / np.diff(edges),
        sample_times=times,
        in_flight=(np.searchsorted(sent, times, "right") - np.searchsorted(finished, times, "right")).astype(float),
        failure_times=np.array([time for time in failed if start <= time <= end]),
    )
