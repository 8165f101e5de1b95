"""Request records of a load point on disk, as a compact .npz with one array per column.

Times are whole microseconds: `sent` on the observation's clock, all others relative to `sent`.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotuner.core import LoadPoint, Observation, RequestRecord
from autotuner.errors import RunStoreError, file_error_reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FORMAT_VERSION = 1
_TIME_COLUMNS = ("scheduled", "finished", "first_output")
_COUNT_COLUMNS = ("index", "requested_prompt", "requested_output")
_OPTIONAL_COUNT_COLUMNS = ("prompt_tokens", "output_tokens", "cached_tokens")
_CATEGORY_COLUMNS = ("finish_reason", "error", "token_counts")


def save(path: str | Path, observation: Observation) -> None:
    """Write `observation` to `path` atomically; RunStoreError if it cannot be written."""
    import numpy as np

    path = Path(path)
    records = observation.records
    sent = np.array([record.sent for record in records], dtype=np.float64)
    chunk_counts = np.array([len(record.chunk_times) for record in records], dtype=np.int64)
    chunk_times = _concatenate("d", [record.chunk_times for record in records])
    columns: dict[str, Any] = {
        "sent": np.rint(sent * 1e6).astype(np.int64),
        "chunks": chunk_counts,
        "chunk_times": _microseconds(chunk_times, sent.repeat(chunk_counts)),
        "chunk_tokens": np.asarray(_concatenate("I", [record.chunk_tokens for record in records]), dtype=np.uint32),
    }
    for name in _TIME_COLUMNS:
        columns[name] = _microseconds([_none_to_nan(getattr(record, name)) for record in records], sent)
    for name in _COUNT_COLUMNS:
        columns[name] = np.array([getattr(record, name) for record in records], dtype=np.int64)
    for name in _OPTIONAL_COUNT_COLUMNS:
        values = [getattr(record, name) for record in records]
        columns[name] = np.array([-1 if value is None else value for value in values], dtype=np.int64)
    columns["client_delay"] = _microseconds(
        [_none_to_nan(record.client_delay) for record in records], np.zeros(len(records))
    )
    categories: dict[str, list[str]] = {}
    for name in _CATEGORY_COLUMNS:
        values = [getattr(record, name) for record in records]
        categories[name] = sorted({value for value in values if value is not None})
        codes = {value: code for code, value in enumerate(categories[name])}
        columns[name] = np.array([codes.get(value, -1) for value in values], dtype=np.int16)
    columns["about"] = np.frombuffer(json.dumps(_metadata(observation, categories)).encode(), dtype=np.uint8)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, **columns)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunStoreError(
            f"The request records '{path}' cannot be written.",
            why=f"{error.strerror}.",
            remedy="Free some space, and continue with --resume.",
        ) from error


def read(path: str | Path) -> Observation:
    """Read what `save` wrote; RunStoreError if the file is missing or damaged."""
    import zipfile

    import numpy as np

    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as columns:
            return _observation(dict(columns))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise RunStoreError(f"The request records '{path}' cannot be read.", why=file_error_reason(error)) from error


def _metadata(observation: Observation, categories: dict[str, list[str]]) -> dict[str, Any]:
    point = observation.load_point
    return {
        "version": _FORMAT_VERSION,
        "load_point": {"scenario": point.scenario, "concurrency": point.concurrency, "rate": point.rate},
        "window": observation.window,
        "loop_lag_p99": observation.loop_lag_p99,
        "loop_lag_mean": observation.loop_lag_mean,
        "client_cpu": observation.client_cpu,
        "counters": dict(observation.counters),
        "cut_off": observation.cut_off_requests,
        "ended_early": observation.abort_reason,
        "decided": observation.stop_reason,
        "due": observation.due_requests,
        "held_back": observation.held_back_requests,
        "retry_after": observation.retry_after,
        "changing": observation.nonstationary_arrivals,
        "error_messages": dict(observation.error_messages),
        "words": categories,
    }


def _observation(columns: dict[str, Any]) -> Observation:
    """The observation from the columns of a file, where times are microseconds after the sending of each request."""
    import numpy as np

    metadata = json.loads(columns["about"].tobytes())
    if metadata["version"] != _FORMAT_VERSION:
        raise ValueError(f"they have format version {metadata['version']}, and this program reads {_FORMAT_VERSION}")
    # files written before these columns existed
    missing = np.full(len(columns["sent"]), MISSING_MICROSECONDS)
    columns = {"cached_tokens": missing, "client_delay": missing, "token_counts": missing, **columns}
    sent = columns["sent"] / 1e6
    chunk_times = _seconds(columns["chunk_times"], columns["sent"].repeat(columns["chunks"]))
    chunk_tokens = columns["chunk_tokens"]
    chunk_edges = np.concatenate(([0], np.cumsum(columns["chunks"]))).tolist()
    times = {name: _seconds(columns[name], columns["sent"]).tolist() for name in _TIME_COLUMNS}
    delays = columns["client_delay"]
    values = {name: columns[name].tolist() for name in (*_COUNT_COLUMNS, *_OPTIONAL_COUNT_COLUMNS, *_CATEGORY_COLUMNS)}
    records = [
        RequestRecord(
            index=values["index"][row],
            scheduled=times["scheduled"][row],
            sent=time,
            finished=times["finished"][row],
            chunk_times=array("d", chunk_times[chunk_edges[row] : chunk_edges[row + 1]].tobytes()),
            chunk_tokens=array("I", chunk_tokens[chunk_edges[row] : chunk_edges[row + 1]].tobytes()),
            requested_prompt=values["requested_prompt"][row],
            requested_output=values["requested_output"][row],
            prompt_tokens=_negative_to_none(values["prompt_tokens"][row]),
            output_tokens=_negative_to_none(values["output_tokens"][row]),
            first_output=None if columns["first_output"][row] == MISSING_MICROSECONDS else times["first_output"][row],
            finish_reason=_category(metadata, "finish_reason", values["finish_reason"][row]),
            error=_category(metadata, "error", values["error"][row]),
            cached_tokens=_negative_to_none(values["cached_tokens"][row]),
            client_delay=None if delays[row] == MISSING_MICROSECONDS else float(delays[row]) / 1e6,
            token_counts=_category(metadata, "token_counts", values["token_counts"][row]),
        )
        for row, time in enumerate(sent.tolist())
    ]
    return Observation(
        load_point=LoadPoint(**metadata["load_point"]),
        records=tuple(records),
        window=(metadata["window"][0], metadata["window"][1]),
        loop_lag_p99=metadata["loop_lag_p99"],
        loop_lag_mean=metadata.get("loop_lag_mean"),
        client_cpu=metadata.get("client_cpu"),
        counters=metadata["counters"],
        cut_off_requests=metadata["cut_off"],
        abort_reason=metadata["ended_early"],
        stop_reason=metadata.get("decided"),
        due_requests=metadata.get("due"),
        held_back_requests=metadata.get("held_back"),
        retry_after=metadata.get("retry_after"),
        nonstationary_arrivals=metadata.get("changing", False),
        error_messages=metadata.get("error_messages", {}),
    )


MISSING_MICROSECONDS = -(1 << 62)


def _microseconds(times: Sequence[float], origin: NDArray[np.float64]) -> NDArray[np.int64]:
    import numpy as np

    offsets = (np.asarray(times, dtype=np.float64) - origin) * 1e6
    missing = np.isnan(offsets)
    return np.where(missing, MISSING_MICROSECONDS, np.rint(np.where(missing, 0.0, offsets))).astype(np.int64)


def _seconds(offsets: NDArray[np.int64], origin: NDArray[np.int64]) -> NDArray[np.float64]:
    seconds: NDArray[np.float64] = (offsets + origin) / 1e6
    return seconds


def _concatenate(typecode: str, parts: list[Sequence[Any]]) -> array[Any]:
    joined = array(typecode)
    for part in parts:
        joined.extend(part)
    return joined


def _none_to_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _negative_to_none(value: int) -> int | None:
    return None if value < 0 else value


def _category(metadata: dict[str, Any], column: str, code: int) -> str | None:
    return None if code < 0 else str(metadata["words"][column][code])
