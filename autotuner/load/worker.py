"""`python -m autotuner.load.worker`: drives one load point, alone in its process.

Reads a job as one line of JSON on stdin and ends when stdin does; any later line ends its
load point. Writes one JSON object per line on stdout: `{"phase": ...}` as it goes, at the end
`{"outcome": ...}`. The request records are in the job's folder, as they come.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autotuner.load import spool
from autotuner.load.connection import Dialer
from autotuner.load.driver import Loop, Outcome, Run, drive
from autotuner.load.job import Job
from autotuner.load.loops import ClosedLoop, OpenLoop
from autotuner.load.probe import calibrate
from autotuner.load.scheduling import going_first
from autotuner.workload import arrivals, scenarios
from autotuner.workload.prompts import Prompts
from autotuner.workload.requests import Requests

_STDIN = 0


def main() -> None:
    """Do one job."""
    job = Job.from_json(_first_line())
    _raise_open_file_limit()
    job.spool.touch()
    transcriber = spool.start_transcriber(job.spool, job.records)
    try:
        with going_first(), asyncio.Runner(loop_factory=_loop_factory()) as runner:
            outcome = runner.run(_attended(job))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(transcriber, signal.SIGKILL)
        os.waitpid(transcriber, 0)
    spool.transcribe(job.spool, job.records)
    _say({"outcome": asdict(outcome)})


async def _attended(job: Job) -> Outcome:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_end_on_a_defect)
    halt = asyncio.Event()
    loop.add_reader(_STDIN, _hear_parent, job, halt)
    return await observe(job, lambda phase: _say({"phase": phase}), halt)


async def observe(job: Job, on_phase: Callable[[str], None], halt: asyncio.Event | None = None) -> Outcome:
    """Drive one load point, until `halt` at most, and leave its exchanges in the spool."""
    workload, point = job.workload, job.load_point
    dialer = Dialer(job.endpoint.address, workload.request_timeout)
    scenario = scenarios.parse(point.scenario)
    overhead, per_word = await calibrate(job, dialer) if workload.endpoint == "chat" else (0.0, 1.0)

    def requests(phase: str) -> Requests:
        prompts = Prompts(
            kind=workload.endpoint,
            model=job.endpoint.model,
            vocabulary=job.endpoint.vocabulary,
            salt=f"{job.salt}\n{point}",
            phase=phase,
            prefix=scenario.prefix,
            seed=workload.seed,
            overhead=overhead,
            per_word=per_word,
        )
        return Requests(scenario, prompts, seed=workload.seed, phase=phase)

    written = spool.Spool(job.spool)
    run = Run(job, requests("warm-up"), requests("window"), written, on_phase)
    halting = asyncio.create_task(_halt(run, halt or asyncio.Event()))
    try:
        return await drive(run, _loop(job, run, dialer))
    finally:
        halting.cancel()
        written.close()


async def _halt(run: Run, told: asyncio.Event) -> None:
    await told.wait()
    run.halt()


def _loop(job: Job, run: Run, dialer: Dialer) -> Loop:
    point = job.load_point
    if point.concurrency is not None:
        return ClosedLoop(run, dialer, point.concurrency)
    assert point.rate is not None
    return OpenLoop(run, dialer, arrivals.offsets(point, job.workload), point.rate, job.max_in_flight)


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return factory


def _first_line() -> bytes:
    """Read up to the first line break without taking anything after it."""
    line = bytearray()
    while not line.endswith(b"\n"):
        data = os.read(_STDIN, 1 << 16)
        if not data:
            break
        line += data
    return bytes(line)


def _hear_parent(job: Job, halt: asyncio.Event) -> None:
    """End the load point when told to, and the process when stdin ends: then nobody reads the answer."""
    if os.read(_STDIN, 1 << 16):
        halt.set()
    else:
        for path in (job.spool, job.records, job.stderr):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            Path(job.folder).rmdir()
        os._exit(1)


def _end_on_a_defect(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """End the process when a callback raised: the books would be wrong from here on."""
    error = context.get("exception")
    if error is not None and not isinstance(error, OSError):
        traceback.print_exception(error)
        os._exit(1)


def _say(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _raise_open_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
