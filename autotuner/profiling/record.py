"""The record of a profile on disk: the request, every launch, and every point, appended and synced.

DIR/request.json    what was asked
DIR/points.jsonl    one line per launch that started and per point, each synced before the next one begins
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from autotuner.core import Failure, FailureKind
from autotuner.errors import AutotuneError, ConfigError, RunStoreError
from autotuner.input_files import read_json
from autotuner.output_files import write_whole
from autotuner.profiling.mappings import ParallelMapping, mapping_named
from autotuner.profiling.points import DecodePoint, PrefillPoint, ProfilePoint, point_from_json, point_to_json
from autotuner.profiling.request import SlaRequest
from autotuner.redaction import redact_settings

REQUEST_FILE, POINTS_FILE, LOCK_FILE = "request.json", "points.jsonl", ".lock"
FORMAT = 1


@dataclass(frozen=True)
class ProfiledLaunch:
    """One launch of a mapping: what the worker reported, how long it took, and the failure that ended it, if any.

    `seconds` are those from its start to its end, `start_seconds` until it was ready; virtual ones if simulated.
    """

    mapping: ParallelMapping
    number: int
    kv_tokens: int
    max_context: int
    running_limit: int | None
    start_seconds: float
    seconds: float
    failure: Failure | None = None
    remarks: tuple[str, ...] = ()


@dataclass
class ProfileRecord:
    """A profile's folder, its launches, and the points of each mapping by their keys."""

    path: Path
    request: SlaRequest
    launches: list[ProfiledLaunch] = field(default_factory=list)
    points: dict[ParallelMapping, dict[tuple[object, ...], ProfilePoint]] = field(default_factory=dict)

    @classmethod
    def open_or_create(cls, path: Path, request: SlaRequest) -> ProfileRecord:
        """Continue the profile in `path`, or begin one; ConfigError if it was asked something else."""
        if (path / REQUEST_FILE).exists():
            record = cls.open(path)
            recorded, requested = _as_written(record.request), _as_written(request)
            if recorded != requested:
                changed = [name for name, value in requested.items() if recorded.get(name) != value]
                raise ConfigError(
                    f"'{path}' holds the profile of another request.",
                    why=f"It differs in {', '.join(changed)}.",
                    remedy="Choose another --output, or repeat the command that began it, to resume it.",
                )
            record.request = request  # with the secrets that the record lacks
            return record
        try:
            path.mkdir(0o700, parents=True, exist_ok=True)
            write_whole(path / REQUEST_FILE, (json.dumps(_as_written(request), indent=1) + "\n").encode())
        except OSError as error:
            raise _unwritable(path, error) from error
        return cls(path, request)

    @classmethod
    def open(cls, path: Path) -> ProfileRecord:
        """Read a profile; RunStoreError if the folder is none or was written by another version."""
        try:
            data = read_json(path / REQUEST_FILE)
            version = data.pop("format")
            if version != FORMAT:
                raise ValueError(f"its format version is {version}, and this program reads {FORMAT}")
            record = cls(path, SlaRequest.from_json(data))
            record._read_lines()
        except FileNotFoundError as error:
            raise RunStoreError(
                f"'{path}' is not the folder of an SLA profile.",
                why=f"It has no {REQUEST_FILE}.",
                remedy="Name a folder that `autotune sla run` made.",
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            why = error.what if isinstance(error, AutotuneError) else str(error)
            raise RunStoreError(f"The SLA profile in '{path}' cannot be read.", why=why) from error
        return record

    def _read_lines(self) -> None:
        file = self.path / POINTS_FILE
        text = file.read_bytes() if file.exists() else b""
        for line in text.split(b"\n")[:-1]:  # a last line without its newline was cut by a crash
            data = json.loads(line)
            if data.pop("kind") == "launch":
                self.launches.append(_launch_from_json(data))
            else:
                self._keep(mapping_named(data.pop("mapping")), point_from_json(data))

    def add_point(self, mapping: ParallelMapping, point: ProfilePoint) -> None:
        """Append a point and sync it to disk."""
        self._keep(mapping, point)
        self._append({"kind": "point", "mapping": mapping.name, **point_to_json(point)})

    def add_launch(self, launch: ProfiledLaunch) -> None:
        """Append a launch that ended and sync it to disk."""
        self.launches.append(launch)
        failure = launch.failure
        self._append(
            {
                "kind": "launch",
                **asdict(launch),
                "mapping": launch.mapping.name,
                "failure": asdict(failure) if failure else None,
            }
        )

    def _keep(self, mapping: ParallelMapping, point: ProfilePoint) -> None:
        self.points.setdefault(mapping, {})[point.key] = point

    def _append(self, data: Mapping[str, Any]) -> None:
        path = self.path / POINTS_FILE
        try:
            with path.open("a+b") as file:
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
                file.write(json.dumps(redact_settings(data), separators=(",", ":")).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(path, error) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out of the folder; RunStoreError if another process profiles into it."""
        try:
            file = (self.path / LOCK_FILE).open("w")
        except OSError as error:
            raise _unwritable(self.path, error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunStoreError(
                    f"The profile '{self.path}' is in use.",
                    why="Another autotune process is adding points to it.",
                    remedy="Wait for it to end, or choose another --output.",
                ) from error
            yield

    def prefill_points(self, mapping: ParallelMapping) -> list[PrefillPoint]:
        """All prefill points of a mapping by prompt length, rejected ones included."""
        points = [point for point in self.points.get(mapping, {}).values() if isinstance(point, PrefillPoint)]
        return sorted(points, key=lambda point: point.prompt_tokens)

    def decode_points(self, mapping: ParallelMapping) -> list[DecodePoint]:
        """All decode points of a mapping by context and requests in flight, rejected ones included."""
        points = [point for point in self.points.get(mapping, {}).values() if isinstance(point, DecodePoint)]
        return sorted(points, key=lambda point: (point.context_length, point.concurrency))

    def kv_tokens(self, mapping: ParallelMapping) -> int:
        """KV capacity of a worker of the mapping in tokens; 0 before it was launched."""
        return next((launch.kv_tokens for launch in self.launches if launch.mapping == mapping), 0)

    @property
    def seconds(self) -> float:
        """Seconds of all launches together."""
        return sum(launch.seconds for launch in self.launches)

    @property
    def gpu_hours(self) -> float:
        return sum(launch.seconds * launch.mapping.gpus for launch in self.launches) / 3600


def _launch_from_json(data: dict[str, Any]) -> ProfiledLaunch:
    failure = data.pop("failure")
    return ProfiledLaunch(
        **{**data, "mapping": mapping_named(data["mapping"]), "remarks": tuple(data["remarks"])},
        failure=Failure(**{**failure, "kind": FailureKind(failure["kind"])}) if failure else None,
    )


def _as_written(request: SlaRequest) -> dict[str, Any]:
    """A request as its file holds it, with secrets masked."""
    data: dict[str, Any] = json.loads(json.dumps(redact_settings({"format": FORMAT, **request.to_json()})))
    return data


def _unwritable(path: Path, error: OSError) -> RunStoreError:
    return RunStoreError(
        f"'{path}' cannot be written.", why=f"{error.strerror}.", remedy="Free some space, or choose another --output."
    )
