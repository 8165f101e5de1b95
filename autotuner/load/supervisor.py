"""`measure`: one load point in a process of its own, from job to observation."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from autotuner.core import LoadPoint, Observation, Workload
from autotuner.errors import MachineError
from autotuner.load import spool
from autotuner.load.counters import differences, read_counters
from autotuner.load.job import Endpoint, Job, request_head
from autotuner.workload import scenarios


def measure(
    endpoint: Endpoint,
    load_point: LoadPoint,
    workload: Workload,
    *,
    salt: str,
    on_phase: Callable[[str], None],
    max_in_flight: int | None = None,
) -> Observation:
    """Drive `load_point` on a running server and bring back its raw records.

    `salt` sets this run's prompts apart from every other run's. `on_phase` gets "warming-up" and
    "measuring". `max_in_flight` bounds an open loop. What the server does wrong is counted in the
    records, never raised; ConfigError: the scenario or the address is not one; MachineError: the
    worker process died.

    The records are those sent in the window, and those of the warm-up that were still running when
    it began: their tokens count towards throughput, their latencies do not. Those of the warm-up
    have an index below 0; what failed in the warm-up is kept too.
    """
    scenarios.parse(load_point.scenario)
    request_head(endpoint, workload.endpoint)
    base = endpoint.address.base
    before = read_counters(base, headers=endpoint.headers)
    with tempfile.TemporaryDirectory(prefix=f"autotune-load-{os.getpid()}-") as folder:
        job = Job.of(endpoint, load_point, workload, salt=salt, folder=folder, max_in_flight=max_in_flight)
        outcome = _work(job, on_phase)
        records = spool.read(job.records)
    start, end = outcome["window"]
    return Observation(
        load_point=load_point,
        records=tuple(sorted(records, key=lambda record: record.sent)),
        window=(start, end),
        loop_lag_p99=outcome["loop_lag_p99"],
        counters=differences(before, read_counters(base, headers=endpoint.headers)),
        cut_off=outcome["cut_off"],
        ended_early=outcome["ended_early"],
    )


def _work(job: Job, on_phase: Callable[[str], None]) -> dict[str, Any]:
    """Run the worker to its end and return its outcome."""
    with _worker(job.stderr) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(job.to_json() + "\n")
            process.stdin.flush()
        for line in process.stdout:
            message = json.loads(line)
            if "phase" in message:
                on_phase(message["phase"])
            else:
                outcome: dict[str, Any] = message["outcome"]
                return outcome
        status = process.wait()
    said = job.stderr.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise MachineError(
        f"The load generator's process ended with status {status} before its load point did.",
        why=said[-1] if said else "It said nothing.",
        remedy="Run again; if it was killed, free memory on this machine or lower the load.",
    )


@contextlib.contextmanager
def _worker(stderr: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the worker in a session of its own; nothing of it is left at the end."""
    # -P: a file random.py in the user's folder must not become ours
    command = [sys.executable, "-P", "-m", "autotuner.load.worker"]
    package = str(Path(__file__).parents[2])
    search_path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), package)))
    with stderr.open("wb") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": search_path},
            start_new_session=True,
            text=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
