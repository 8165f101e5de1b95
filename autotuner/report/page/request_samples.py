"""Latencies of single requests for the page: as many as it can hold, packed into text."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotuner.core import Trial
from autotuner.experiment import Slo
from autotuner.load.latencies import RequestLatencies, read_latencies
from autotuner.scoring.slo import request_terms

MISSING_CODE, FAILED_CODE = 0, 65535
_SMALLEST_SECONDS, _STEPS = 1e-5, 3500.0
"""Code c stands for _SMALLEST_SECONDS * exp(c / _STEPS): 10 us to 22 minutes in steps of 0.03%."""

TIMELINE_REQUESTS = 120


def records_file(run_folder: Path, trial: Trial, position: int) -> Path:
    """The records of the load point at `position`, from 1, among the results of a trial."""
    return run_folder / "trials" / f"{trial.number:03d}" / f"records-{position}.npz"


@lru_cache(maxsize=512)
def _read(path: Path, modified_nanoseconds: int) -> RequestLatencies | None:
    try:
        return read_latencies(path)
    except (OSError, ValueError):
        return None  # the page does without: verdicts do not depend on it


def latencies(path: Path) -> RequestLatencies | None:
    """The latencies in a file of records; None where it is missing or damaged."""
    try:
        return _read(path, path.stat().st_mtime_ns)
    except OSError:
        return None


def pack_requests(launches: Sequence[RequestLatencies], slo: Slo, limit: int) -> dict[str, Any]:
    """At most `limit` requests of these launches, evenly spaced in time, and how many there were.

    `pairs` holds TTFT and TPOT of one request after another as 16-bit codes; `misses`, where there are
    targets on other metrics of single requests, a byte for each request: 1 where one of those is missed.
    """
    ttft, tpot = (np.concatenate([getattr(launch, name) for launch in launches]) for name in ("ttft", "tpot"))
    failed = np.concatenate([launch.failed for launch in launches])
    count = len(ttft)
    chosen: NDArray[np.int64] = np.unique(np.linspace(0, max(0, count - 1), min(limit, count)).round().astype(np.int64))
    pairs = np.stack([_codes(ttft, failed), _codes(tpot, failed)], axis=1)[chosen]
    packed: dict[str, Any] = {"n": count, "pairs": _base64(pairs.astype("<u2"))}
    misses = np.concatenate([_other_misses(launch, slo) for launch in launches])
    if misses.any():
        packed["misses"] = _base64(misses[chosen].astype(np.uint8))
    return packed


def timeline(launch: RequestLatencies) -> list[list[float]]:
    """The first requests of a window without failures: when each was sent, TTFT and E2E latency, in seconds."""
    rows = zip(launch.sent.tolist(), launch.ttft.tolist(), launch.e2e.tolist(), launch.failed.tolist(), strict=True)
    return [[round(value, 4) for value in row[:3]] for row in rows if not row[3]][:TIMELINE_REQUESTS]


def _other_misses(launch: RequestLatencies, slo: Slo) -> NDArray[np.bool_]:
    """Which requests miss a target on single requests other than TTFT and TPOT."""
    misses = np.zeros(len(launch.ttft), dtype=np.bool_)
    for term in request_terms(slo):
        if term.metric in ("latency", "itl"):
            values = launch.e2e if term.metric == "latency" else launch.itl
            misses |= values > term.threshold  # NaN misses nothing here
    return misses


def _codes(seconds: NDArray[np.float64], failed: NDArray[np.bool_]) -> NDArray[np.int64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.rint(_STEPS * np.log(seconds / _SMALLEST_SECONDS))
    codes = np.clip(np.nan_to_num(codes, nan=MISSING_CODE, neginf=1.0), 1, FAILED_CODE - 1)
    codes = np.where(np.isnan(seconds), MISSING_CODE, codes)
    return np.where(failed, FAILED_CODE, codes).astype(np.int64)


def _base64(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()
