"""A trace of what a running engine computes: its profiler on while a small load runs, and the files it wrote."""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

from autotuner.endpoints.address import API_PATHS
from autotuner.endpoints.client import Client, NoAnswerError
from autotuner.endpoints.models import ServedModel
from autotuner.endpoints.profiler import ServerProfiler
from autotuner.endpoints.tls import TlsTrust
from autotuner.errors import EndpointError
from autotuner.workload.prompts import Prompts

log = logging.getLogger(__name__)

TRACE_FILES = ("*.trace.json*", "profiler_out*.txt")
"""Traces of PyTorch's profiler, and the tables of operators that vLLM writes beside them."""
REQUEST_TIMEOUT_SECONDS = 300.0
POLL_SECONDS, SETTLED_POLLS = 0.25, 4
"""Files that so many polls leave unchanged are complete."""
UNSURE_FILE_SECONDS = 20.0
"""How long files are waited for in a folder that only some engines write to when they are asked."""

FileStates = dict[Path, tuple[int, int]]


@dataclass(frozen=True)
class TraceLoad:
    """The requests that are traced: `concurrency` at a time, each of about so many tokens."""

    requests: int = 8
    concurrency: int = 4
    prompt_tokens: int = 256
    output_tokens: int = 16


@dataclass(frozen=True)
class EngineTrace:
    """The files of a trace, empty where they cannot be reached, and how many requests it covers."""

    files: tuple[Path, ...]
    answered: int
    first_error: str | None = None


@dataclass(frozen=True)
class EngineTracer:
    """Traces the servers at `workers` while the model at `served.url` answers a load.

    The servers write to `server_folder` as this machine sees it, None where it does not see it. `is_folder_agreed` if
    they were started with that folder; else they are asked to write there, which SGLang does. `timeout` is for
    stopping each profiler, and then for its files.
    """

    served: ServedModel
    workers: tuple[str, ...]
    load: TraceLoad
    server_folder: Path | None
    is_folder_agreed: bool
    timeout: float
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: TlsTrust | None = None

    def record(self, output: Path) -> EngineTrace:
        """Record a trace and copy its files to `output`; profilers that were started are stopped whatever happens.

        EndpointError if a profiler cannot be started or stopped, or no request is answered, or no file appears.
        """
        output.mkdir(parents=True, exist_ok=True)
        folder = self.server_folder
        before = _file_states(folder) if folder else {}
        answered, first_error = self._profile_load()
        if not answered:
            raise EndpointError(
                "No request of the traced load was answered.",
                why=first_error or "",
                remedy="Look at that server's log; `autotune bench` tests its API.",
            )
        if folder is None:
            return EngineTrace((), answered, first_error)
        files = self._wait_for_files(folder, before)
        return EngineTrace(tuple(_collect(file, folder, output) for file in files), answered, first_error)

    def _profile_load(self) -> tuple[int, str | None]:
        """Send the load between start and stop; (requests answered, the first error)."""
        running: list[tuple[ServerProfiler, str]] = []
        folder = str(self.server_folder.absolute()) if self.server_folder else None
        try:
            for url in self.workers:
                profiler = ServerProfiler(url, self.headers, self.tls)
                running.append((profiler, profiler.start(folder)))
                log.info("%s: profiling", url)
            outcome = self._send_load()
            while running:
                profiler, stop_path = running.pop()
                log.info("%s: writing the trace", profiler.url)
                profiler.stop(stop_path, self.timeout)
        finally:
            for profiler, stop_path in running:
                with suppress(EndpointError):
                    profiler.stop(stop_path, self.timeout)
        return outcome

    def _send_load(self) -> tuple[int, str | None]:
        served, load = self.served, self.load
        prompts = Prompts(
            kind=served.endpoint,
            model=served.model,
            vocab_size=0,
            salt=secrets.token_hex(8),
            phase="trace",
            form=replace(served.form, prompts="text"),
        )

        def send(index: int) -> str | None:
            """The error of a request; None of one that is answered."""
            body = prompts.body(index, load.prompt_tokens, load.output_tokens)
            try:
                with Client(served.url, self.headers, self.tls) as client:
                    client.ask(API_PATHS[served.endpoint], body, REQUEST_TIMEOUT_SECONDS).require_ok()
            except NoAnswerError as error:
                return str(error)
            return None

        with ThreadPoolExecutor(load.concurrency) as senders:
            errors = list(senders.map(send, range(load.requests)))
        return errors.count(None), next((error for error in errors if error is not None), None)

    def _wait_for_files(self, folder: Path, before: FileStates) -> list[Path]:
        """The new files below `folder`, once they do not change any more."""
        seconds = self.timeout if self.is_folder_agreed else min(self.timeout, UNSURE_FILE_SECONDS)
        deadline = time.monotonic() + seconds
        states: FileStates = {}
        unchanged = 0
        while not states or unchanged < SETTLED_POLLS:
            if time.monotonic() > deadline and not states:
                raise EndpointError(
                    f"The servers wrote no trace to {folder} within {seconds:g} s.",
                    why="SGLang writes where it is asked to, on its own machine or in its container; vLLM to its "
                    "torch_profiler_dir.",
                    remedy="Name the folder that the server writes to, as this machine sees it, with --server-folder.",
                )
            time.sleep(POLL_SECONDS)
            earlier, states = states, dict(_file_states(folder).items() - before.items())
            unchanged = unchanged + 1 if states and states == earlier else 0
        return sorted(states)


def _file_states(folder: Path) -> FileStates:
    """Size and time of the traces below a folder, which need not exist yet."""
    states: FileStates = {}
    for path in folder.rglob("*"):
        if any(fnmatch(path.name, pattern) for pattern in TRACE_FILES):
            with suppress(FileNotFoundError):  # SGLang renames a file when it is complete
                state = path.stat()
                states[path] = (state.st_size, state.st_mtime_ns)
    return states


def _collect(file: Path, folder: Path, output: Path) -> Path:
    """Copy a file below `folder` to the same place below `output`, unless that is where it is."""
    target = output / file.relative_to(folder)
    if target.resolve() != file.resolve():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
    return target
