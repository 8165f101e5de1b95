"""Latencies of all requests of a load point, read from its records as arrays, without an object for each request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotuner.core import MIN_TPOT_SECONDS
from autotuner.load.records import MISSING_MICROSECONDS

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class RequestLatencies:
    """The requests due in the window of a load point, in the order of sending; times in seconds.

    `sent` counts from the start of the window. In an open loop `ttft` and `e2e` count from the scheduled
    arrival. `tpot` and `itl`, the mean inter-token latency, are NaN where a request has none. Of requests
    that `failed` all latencies are NaN.
    """

    sent: Seconds
    ttft: Seconds
    tpot: Seconds
    itl: Seconds
    e2e: Seconds
    failed: NDArray[np.bool_]


def read_latencies(path: Path) -> RequestLatencies:
    """Read the file of records; OSError or ValueError if it is missing or damaged.

    The definitions are those of `RequestRecord` and of `scoring.window`.
    """
    import zipfile

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as columns:
            return _latencies(columns)
    except (KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"the request records '{path}' cannot be read: {error}") from error


def _latencies(columns: Any) -> RequestLatencies:
    metadata = json.loads(bytes(columns["about"]))
    counts, sent = columns["chunks"], columns["sent"] / 1e6
    scheduled = np.where(columns["scheduled"] == MISSING_MICROSECONDS, 0, columns["scheduled"]) / 1e6
    start, end = metadata["window"]
    due = (sent + scheduled >= start) & (sent + scheduled <= end)
    if not metadata["ended_early"]:
        due &= columns["index"] >= 0
    failed = (columns["error"] != -1) | (counts == 0)
    has_chunks = counts > 0
    ends = np.cumsum(counts)
    first_index, last_index = np.minimum(ends - counts, max(0, ends[-1] - 1) if len(ends) else 0), ends - 1
    times = np.append(columns["chunk_times"], 0) / 1e6  # a place for an index where nothing arrived
    tokens = np.append(columns["chunk_tokens"].astype(np.int64), 0)
    first, last = times[first_index], times[last_index]
    total_tokens = np.append(0, np.cumsum(tokens))
    received = total_tokens[ends] - total_tokens[ends - counts]
    output = np.where(columns["output_tokens"] == -1, received, columns["output_tokens"])
    later, later_received = output - tokens[first_index], received - tokens[first_index]
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot = np.where(has_chunks & (later > 0), (last - first) / later, np.nan)
        tpot = np.where(tpot >= MIN_TPOT_SECONDS, tpot, np.nan)
        itl = np.where(np.isnan(tpot) | (later_received <= 0), np.nan, (last - first) / later_received)
    origin = scheduled if metadata["load_point"]["rate"] is not None else np.zeros_like(scheduled)
    order = np.argsort(sent[due], kind="stable")

    def chosen(values: Any) -> Any:
        return np.where(failed, np.nan, values)[due][order]

    return RequestLatencies(
        sent=(sent[due] - start)[order],
        ttft=chosen(first - origin),
        tpot=chosen(tpot),
        itl=chosen(itl),
        e2e=chosen(last - origin),
        failed=failed[due][order],
    )
