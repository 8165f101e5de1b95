"""The run folder: the experiment, every finished trial, and the files of each trial.

RUN/experiment.yaml    the composed configuration
RUN/provenance.yaml    the layers, and for each value the layer it came from
RUN/refused.json       combinations of parameters that cannot run, and why
RUN/search.json        why the search stopped, and the candidates it left out
RUN/environment.json   the hosts it ran on, one after another: system, GPUs, driver, versions
RUN/trials.jsonl       one line per finished trial, synced before the next one starts
RUN/trials.index       of a large run, what reports read of trials.jsonl (`summaries.py`)
RUN/trials/001/        command.sh, server.log, environment.json, records-1.npz, ... of trial 1
RUN/best/              the winner's commands
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

import yaml
from pydantic import TypeAdapter, ValidationError

from autotuner.core import Candidate, Trial
from autotuner.errors import MAX_PATH_CHARACTERS, RunStoreError, UsageError, shorten_middle
from autotuner.experiment import Experiment
from autotuner.input_files import open_bytes, read_json, read_yaml
from autotuner.output_files import write_whole
from autotuner.redaction import mask_values, redact, redact_data, write_redacted, write_redacted_json
from autotuner.runs.forecasts import LayoutForecast
from autotuner.runs.summaries import (
    MAX_COMPLETE_LOAD_POINTS,
    MIN_ADDED_BYTES,
    MIN_INDEXED_BYTES,
    SummaryContent,
    read_index,
    summarize,
    write_index,
)
from autotuner.runs.trial_lines import FORMAT, FORMAT_KEY, line_format, line_number, parse_trial, trial_line
from autotuner.scoring.judge import judge

EXPERIMENT_FILE = "experiment.yaml"
TRIALS_FILE = "trials.jsonl"
REFUSED_FILE = "refused.json"
SEARCH_FILE = "search.json"
FORECASTS_FILE = "forecasts.json"
ENVIRONMENT_FILE = "environment.json"
LOCK_FILE = ".lock"

DRAFT_PREFIX = ".new-run-"
"""Beginning of the name of a folder that is not yet a run."""

MAX_SLUG_LENGTH = 100
"""Characters of a task's name in that of its folder: file systems take 255 bytes."""

KIND_KEY = "kind"
RunKind = Literal["tuning", "load-test"]
"""What a run is for: to find the best candidate, or to load-test one server that is already running."""


_DAMAGE_ERRORS = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
"""What reading a damaged or foreign file raises: YAML's tags, numbers of thousands of digits, deep nesting."""


class RunStore:
    """One run folder. Appended trials are synced to disk; a partly written last line is dropped."""

    def __init__(self, path: Path, experiment: Experiment, kind: RunKind = "tuning") -> None:
        self.path = path
        self.experiment = experiment
        self.kind = kind
        self._taken_numbers: set[int] | None = None
        self._trials_read: tuple[_FileState, list[Trial]] | None = None
        self._summaries_read: tuple[_FileState, list[Trial]] | None = None

    @classmethod
    def create(cls, root: Path, config: Mapping[str, Any], provenance: Mapping[str, Any]) -> RunStore:
        """Make a new run folder under `root`, named after the task and the time."""
        experiment = Experiment.model_validate(config)
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", experiment.task_name)[:MAX_SLUG_LENGTH].strip("-.") or "run"
        with explain_write_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=DRAFT_PREFIX, dir=root))  # of mode 0700
            try:
                _write_configuration(draft, {FORMAT_KEY: FORMAT, **_without_header_secrets(config)}, provenance)
                path = _publish(draft, root, f"{slug}-{datetime.now():%Y%m%d-%H%M%S}")
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        return cls(path, experiment)

    @classmethod
    def create_load_test(cls, path: Path, experiment: Experiment, provenance: Mapping[str, Any]) -> RunStore:
        """Make the run folder of a load test in the empty folder `path`; headers are left out, which may be secret."""
        config = experiment.model_dump(exclude={"deployment": {"headers"}})
        with explain_write_errors(path):
            _write_configuration(path, {FORMAT_KEY: FORMAT, KIND_KEY: "load-test", **config}, provenance)
        return cls(path, experiment, "load-test")

    @classmethod
    def open(cls, path: Path) -> RunStore:
        """Open an existing run folder; RunStoreError if it is not one."""
        if not (path / EXPERIMENT_FILE).is_file():
            raise RunStoreError(
                f"'{path}' is not a run folder.",
                why=_missing_run_reason(path),
                remedy="Name a folder that `autotune run` made, such as runs/<task>-<time>.",
            )
        try:
            config = dict(read_yaml(path / EXPERIMENT_FILE))
            _check_format(config.pop(FORMAT_KEY, 0), path)
            kind: RunKind = "load-test" if config.pop(KIND_KEY, None) == "load-test" else "tuning"
            return cls(path, Experiment.model_validate(config), kind)
        except (OSError, ValidationError, *_DAMAGE_ERRORS) as error:
            raise RunStoreError(
                f"The configuration of the run '{path}' cannot be read.",
                why=(str(error).splitlines() or [type(error).__name__])[0],
                remedy=f"{EXPERIMENT_FILE} was changed by hand or by another version; start a new run.",
            ) from error

    def config(self) -> dict[str, Any]:
        """The composed configuration, as the layers set it."""
        config = dict(read_yaml(self.path / EXPERIMENT_FILE))
        config.pop(FORMAT_KEY, None)
        config.pop(KIND_KEY, None)
        return config

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from adding trials to this run; RunStoreError if another one does."""
        with contextlib.ExitStack() as stack:
            with explain_write_errors(self.path):  # and no error of what is done meanwhile
                file = stack.enter_context((self.path / LOCK_FILE).open("w"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise RunStoreError(
                        f"The run '{self.path}' is in use.",
                        why="Another autotune process is adding trials to it.",
                        remedy="Wait for it to end, or start a new run.",
                    ) from error
            yield

    def trials(self) -> list[Trial]:
        """All finished trials in order; a last line without its newline is not one.

        A file that is as it was when it was last read, or appended to, is not read again.
        """
        path = self.path / TRIALS_FILE
        try:
            with open_bytes(path) as file, paused_garbage_collection():
                state = _FileState.of(file)
                if self._trials_read is None or self._trials_read[0] != state:
                    self._trials_read = state, list(self._parse_trials(file))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(path, error) from error
        return list(self._trials_read[1])

    def summaries(self) -> list[Trial]:
        """As `trials`, but judged, and of a large run without what only the details of a trial show."""
        path = self.path / TRIALS_FILE
        try:
            if not self.is_large:
                return self._judged_trials()
            with open_bytes(path) as file, paused_garbage_collection():
                state = _FileState.of(file)
                if self._summaries_read is None or self._summaries_read[0] != state:
                    self._summaries_read = state, self._read_summaries(file)
        except OSError as error:
            raise _unreadable(path, error) from error
        trials = self._summaries_read[1]
        if sum(len(trial.results) for trial in trials) <= MAX_COMPLETE_LOAD_POINTS:
            return self._judged_trials()
        return list(trials)

    def _judged_trials(self) -> list[Trial]:
        with paused_garbage_collection():
            return [judge(trial, self.experiment) for trial in self.trials()]

    @property
    def is_large(self) -> bool:
        """Whether `summaries` may have less than `trials`."""
        try:
            return (self.path / TRIALS_FILE).stat().st_size >= MIN_INDEXED_BYTES
        except OSError:
            return False

    def _read_summaries(self, file: BinaryIO) -> list[Trial]:
        """The trials that the index has, and those of the lines after them; an index that lacks many is renewed."""
        content = SummaryContent.of(self.experiment)
        index = read_index(self.path, file, self.experiment)
        added = index.start_of_rest()
        for line in file:
            if not line.endswith(b"\n"):
                break
            trial = self._parse_line(line, added.lines + 1)
            added.add(line, None if trial is None else summarize(trial, content))
        if added.covered - index.covered >= MIN_ADDED_BYTES:
            write_index(self.path, added)
        return added.trials

    def trials_numbered(self, numbers: Container[int]) -> list[Trial]:
        """The trials with these numbers, in order and judged, with everything that was recorded of them."""
        path = self.path / TRIALS_FILE
        try:
            with open_bytes(path) as file:
                trials = [trial for trial in self._parse_trials(file, numbers) if trial.number in numbers]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(path, error) from error
        return [judge(trial, self.experiment) for trial in trials]

    def _parse_trials(self, lines: Iterable[bytes], numbers: Container[int] | None = None) -> Iterator[Trial]:
        """The trials of whole lines; those whose beginning shows that their number is none of these are left out."""
        for position, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                continue
            if numbers is not None and (number := line_number(line)) is not None and number not in numbers:
                continue
            if (trial := self._parse_line(line, position)) is not None:
                yield trial

    def _parse_line(self, line: bytes, position: int) -> Trial | None:
        """The trial of a whole line, None of an empty one; RunStoreError names the line by its position, from 1."""
        if not line.strip():
            return None
        try:
            _check_format(line_format(line), self.path)
            return parse_trial(line)
        except ValidationError as error:
            raise RunStoreError(
                f"Line {position} of '{self.path / TRIALS_FILE}' is not a trial.",
                why=error.errors()[0]["msg"],
                remedy="Remove that line to keep the others.",
            ) from error

    def open_trial(self) -> tuple[int, Path]:
        """Make the empty folder of the next trial; its number, the lowest that is free, and the folder.

        Trials that ran side by side may leave a gap when they are interrupted.
        """
        if self._taken_numbers is None:
            self._taken_numbers = {trial.number for trial in self.summaries()}
        number = next(number for number in itertools.count(1) if number not in self._taken_numbers)
        self._taken_numbers.add(number)
        folder = self.path / _trial_folder(number)
        with explain_write_errors(self.path):
            shutil.rmtree(folder, ignore_errors=True)  # an interrupted attempt at this trial
            folder.mkdir(parents=True)
        return number, folder

    def append(self, trial: Trial) -> None:
        """Write a finished trial and sync it to disk, over a line that a crash left partly written."""
        with explain_write_errors(self.path), _open_private(self.path / TRIALS_FILE) as file:
            before = _FileState.of(file)
            file.truncate(_end_of_last_line(file))
            file.seek(0, os.SEEK_END)
            line = trial_line(trial)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
            self._add_to_those_read(before, _FileState.of(file), line)

    def _add_to_those_read(self, before: _FileState, after: _FileState, line: bytes) -> None:
        """Keep what was read of trials.jsonl in step with a line that was appended to it."""
        try:
            trial = parse_trial(line)
        except ValidationError:  # reading the file says which line it is
            self._trials_read = self._summaries_read = None
            return
        if self._trials_read is not None and self._trials_read[0] == before:
            self._trials_read = after, [*self._trials_read[1], trial]
        if self._summaries_read is not None and self._summaries_read[0] == before:
            summary = judge(summarize(trial, SummaryContent.of(self.experiment)), self.experiment)
            self._summaries_read = after, [*self._summaries_read[1], summary]

    def provenance(self) -> dict[str, Any]:
        """The configuration layers, and the layer each value came from."""
        loaded = read_yaml(self.path / "provenance.yaml")
        return loaded if isinstance(loaded, dict) else {}

    def save_refused(self, refused: Sequence[tuple[Candidate, str]]) -> None:
        """Write the candidates that cannot run, with the reasons."""
        self._save_json(REFUSED_FILE, _candidates_to_json(refused))

    def save_search(
        self, stop_reason: str | None, skipped: Sequence[tuple[Candidate, str]], candidate_count: int | None = None
    ) -> None:
        """Write why the search stopped, the candidates it skipped with the reasons, and how many there were in all."""
        stopped = None if stop_reason is None else redact(stop_reason)
        self._save_json(
            SEARCH_FILE, {"stopped": stopped, "skipped": _candidates_to_json(skipped), "candidates": candidate_count}
        )

    def load_search(self) -> tuple[str | None, tuple[tuple[Candidate, str], ...], int | None]:
        """(stop reason, skipped candidates, number of candidates) of `save_search`; empty before the run's end."""
        try:
            data = read_json(self.path / SEARCH_FILE)
            stopped, count = data["stopped"], data.get("candidates")
            if not isinstance(stopped, str | None) or not isinstance(count, int | None):
                raise ValueError("its values have other types")
            return stopped, tuple(_candidates_from_json(data["skipped"])), count
        except FileNotFoundError:
            return None, (), None
        except (OSError, *_DAMAGE_ERRORS) as error:
            raise RunStoreError(
                f"'{self.path / SEARCH_FILE}' cannot be read.",
                why=str(error),
                remedy="Remove it; the trials are elsewhere.",
            ) from error

    def save_forecasts(self, forecasts: Sequence[LayoutForecast]) -> None:
        """Write what was predicted of layouts that were not launched; nothing where there is none."""
        if forecasts or (self.path / FORECASTS_FILE).exists():
            self._save_json(FORECASTS_FILE, [asdict(forecast) for forecast in forecasts])

    def load_forecasts(self) -> list[LayoutForecast]:
        """What `save_forecasts` wrote; empty where nothing was."""
        try:
            return TypeAdapter(list[LayoutForecast]).validate_python(read_json(self.path / FORECASTS_FILE))
        except FileNotFoundError:
            return []
        except (OSError, ValidationError, *_DAMAGE_ERRORS) as error:
            raise RunStoreError(
                f"'{self.path / FORECASTS_FILE}' cannot be read.",
                why="It does not hold predictions of layouts.",
                remedy="Remove it; the trials are elsewhere.",
            ) from error

    def load_refused(self) -> list[tuple[Candidate, str]]:
        """The candidates that cannot run, with the reasons; empty where none were saved."""
        try:
            rows = read_json(self.path / REFUSED_FILE)
            return _candidates_from_json(rows)
        except FileNotFoundError:
            return []
        except (OSError, *_DAMAGE_ERRORS) as error:
            raise RunStoreError(
                f"'{self.path / REFUSED_FILE}' cannot be read.",
                why=str(error),
                remedy="Remove it; the trials are elsewhere.",
            ) from error

    def add_environment(self, host: Mapping[str, Any]) -> None:
        """Record the host that the run goes on on, unless it is the last one already."""
        hosts = self.environments()
        if not hosts or hosts[-1] != host:
            with explain_write_errors(self.path):
                write_redacted_json(self.path / ENVIRONMENT_FILE, [*hosts, host])

    def environments(self) -> list[dict[str, Any]]:
        """The hosts that the run ran on, in order; empty for a run of a version that did not record them."""
        try:
            hosts = read_json(self.path / ENVIRONMENT_FILE)
        except (OSError, ValueError, RecursionError):  # lost or damaged: the trials do not depend on it
            return []
        return [host for host in hosts if _is_host(host)] if isinstance(hosts, list) else []

    def save(self, name: str, text: str) -> None:
        """Write a file of the run, such as `best/command.sh`, without the secrets that are known."""
        with explain_write_errors(self.path):
            (self.path / name).parent.mkdir(exist_ok=True)
            write_redacted(self.path / name, text)

    def _save_json(self, name: str, data: Any) -> None:
        """Write data whose texts are masked where they are not values of settings."""
        with explain_write_errors(self.path):
            write_whole(self.path / name, (json.dumps(data, indent=1) + "\n").encode())


@dataclass(frozen=True)
class _FileState:
    """What tells whether a file was changed: its inode, size in bytes, and time of its last change."""

    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, file: BinaryIO) -> _FileState:
        status = os.fstat(file.fileno())
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


def _unreadable(path: Path, error: OSError) -> RunStoreError:
    return RunStoreError(f"'{path}' cannot be read.", why=f"{error.strerror}.", remedy="Check it.")


@contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Keep the collector from searching again and again through the millions of objects of a large run."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _is_host(host: Any) -> bool:
    """Whether a part of environment.json has what reports show of a host, in the right types."""
    if not isinstance(host, dict):
        return False
    gpus = host.get("gpus") or []
    return (
        all(isinstance(host.get(name), str) for name in ("autotune", "python", "host", "system", "kernel", "cpu"))
        and isinstance(host.get("cpu_cores"), int)
        and isinstance(gpus, list)
        and all(isinstance(gpu, dict) and isinstance(gpu.get("name"), str) for gpu in gpus)
    )


def _check_format(version: Any, path: Path) -> None:
    if not isinstance(version, int) or version > FORMAT:
        raise RunStoreError(
            f"The run '{path}' has format {version}, and this autotune reads up to {FORMAT}.",
            why="It was made by a newer version.",
            remedy="Update autotune.",
        )


def run_folders(root: Path) -> list[Path]:
    """The run folders in a folder, by name; those that are still being made are none."""
    return sorted(file.parent for file in root.glob(f"[!.]*/{EXPERIMENT_FILE}"))


def _missing_run_reason(path: Path) -> str:
    if path.is_dir():
        return f"It has no {EXPERIMENT_FILE}."
    if not path.exists():
        return "There is no such folder."
    return "It is a file; only `autotune compare` takes a file, one of `autotune baseline save`."


def find_run(name: str | None, root: Path) -> Path:
    """The run folder called `name` (a path, or a name under `root`), or the newest one under `root`."""
    if name is not None:
        return next((path for path in (Path(name), root / name) if (path / EXPERIMENT_FILE).is_file()), Path(name))
    runs = run_folders(root)
    if not runs:
        raise RunStoreError(
            f"There is no run under '{root}'.",
            remedy="Start one with `autotune run --profile quick-test`, or name a run folder.",
        )
    return max(runs, key=lambda path: (path / EXPERIMENT_FILE).stat().st_mtime_ns)


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's error that `path` cannot be written into a RunStoreError with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what, remedy = f"The disk of '{path}' is full.", "Free some space, then resume: finished trials are kept."
        elif error.errno in (errno.EISDIR, errno.ELOOP):
            what, remedy = (
                f"'{shorten_middle(str(path), MAX_PATH_CHARACTERS)}' cannot be written.",
                "Name another file.",
            )
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            what, remedy = f"'{path}' cannot be written.", "Choose another folder with --output."
        else:
            raise
        raise RunStoreError(what, why=f"{error.strerror}.", remedy=remedy) from error


def _without_header_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    deployment = config.get("deployment")
    if not isinstance(deployment, Mapping) or not isinstance(deployment.get("headers"), Mapping):
        return dict(config)
    return {**config, "deployment": {**deployment, "headers": mask_values(deployment["headers"])}}


def _candidates_to_json(candidates: Sequence[tuple[Candidate, str]]) -> list[dict[str, Any]]:
    return [{"runtime": c.runtime, "parameters": dict(c.parameters), "reason": redact(why)} for c, why in candidates]


def _candidates_from_json(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Candidate, str]]:
    if not isinstance(rows, list):
        raise ValueError("it is no list")
    for row in rows:
        if not (isinstance(row["runtime"], str) and isinstance(row["parameters"], dict)):
            raise ValueError("a row is no candidate")
    return [(Candidate(row["runtime"], row["parameters"]), str(row["reason"])) for row in rows]


def _trial_folder(number: int) -> str:
    return f"trials/{number:03d}"


def records_file(trial_number: int, position: int) -> str:
    """The raw records of a trial's load point at `position`, from 1, relative to the run folder."""
    return f"{_trial_folder(trial_number)}/records-{position}.npz"


def make_empty_folder(path: Path) -> None:
    """Make the folder; UsageError if there is one with something in it, RunStoreError if it cannot be made."""
    with explain_write_errors(path):
        path.mkdir(0o700, parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise UsageError(f"The folder '{path}' is not empty.", remedy="Name a new one with --output.")


def _write_configuration(path: Path, config: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    """Write what makes a folder that of a run, with no trial yet; the file that it is known by comes last, whole."""
    _write_yaml(path / "provenance.yaml", redact_data(provenance))
    write_whole(path / TRIALS_FILE, b"")
    _write_yaml(path / EXPERIMENT_FILE, dict(config))


def _publish(draft: Path, root: Path, name: str) -> Path:
    """Give a finished draft its name, the first that is free: a run is there whole or not at all."""
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        path = root / f"{name}{suffix}"
        try:
            draft.rename(path)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                continue
            raise
        _sync_folder(root)
        return path
    raise RunStoreError(f"'{root}' already holds a thousand runs of this second.", remedy="Choose another --output.")


def _write_yaml(path: Path, data: Any) -> None:
    write_whole(path, yaml.safe_dump(data, sort_keys=False).encode("utf-8", "backslashreplace"))


def _sync_folder(path: Path) -> None:
    """Make the names in a folder survive a loss of power, where its file system can."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_private(path: Path) -> BinaryIO:
    """Open a file for reading and writing, and make it where it is missing."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")


def _end_of_last_line(file: BinaryIO) -> int:
    """The number of bytes up to the last line break of a file; read backwards, because the file may be long."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - (1 << 16))
        file.seek(start)
        position = file.read(end - start).rfind(b"\n")
        if position >= 0:
            return start + position + 1
        end = start
    return 0
