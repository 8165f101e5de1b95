"""`python -m autotuner.load.worker`: drives one load point, alone in its process.

Reads a job as one line of JSON on stdin, then the orders of orders.py, and ends when stdin does.
Writes one JSON object per line on stdout: what it found out about the server's count of tokens,
that it is ready, the phases as it goes, the outcome at the end. The request records are in the
job's folder, as they come.
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
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any

from autotuner.errors import ConfigError
from autotuner.load import spool
from autotuner.load.connection import Dialer
from autotuner.load.driver import Loop, Outcome, Run, drive
from autotuner.load.job import Job
from autotuner.load.loops import ClosedLoop, OpenLoop
from autotuner.load.priority import going_first
from autotuner.load.probe import Fit, calibrate
from autotuner.load.worker_protocol import Orders
from autotuner.workload import arrivals, scenarios
from autotuner.workload.conversations import Conversations
from autotuner.workload.prompts import Prompts
from autotuner.workload.requests import Request, Requests
from autotuner.workload.scenarios import Conversation

_STDIN = 0
_TIMED_CONNECTIONS = 64


def main() -> None:
    """Do one job."""
    line, unread = _first_line()
    job = Job.from_json(line)
    _raise_open_file_limit()
    job.spool.touch()
    transcriber = spool.start_transcriber(job.spool, job.records)
    try:
        with going_first(), asyncio.Runner(loop_factory=_loop_factory()) as runner:
            outcome = runner.run(_attended(job, unread))
    except ConfigError as error:
        _say({"refused": {"what": error.what, "why": error.why, "remedy": error.remedy}})
        return
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(transcriber, signal.SIGKILL)
        os.waitpid(transcriber, 0)
    spool.transcribe(job.spool, job.records)
    _say({"outcome": asdict(outcome)})


async def _attended(job: Job, unread: bytes) -> Outcome:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_end_on_a_defect)
    orders = Orders(_STDIN, unread, lambda: _end_without_trace(job))
    loop.add_reader(_STDIN, orders.hear)
    return await observe(job, _say, orders)


async def observe(job: Job, say: Callable[[dict[str, Any]], None], orders: Orders | None = None) -> Outcome:
    """Drive one load point, at once where nobody gives orders, and leave its exchanges in the spool."""
    workload, point = job.workload, job.load_point
    dialer = Dialer(job.endpoint.address, workload.request_timeout, timed=_timed(job))
    scenario = scenarios.parse(point.scenario)
    fit = await _fit(job, dialer, say, orders) if workload.endpoint == "chat" else Fit()

    def prompts(phase: str) -> Prompts:
        return Prompts(
            kind=workload.endpoint,
            model=job.endpoint.model,
            vocabulary=job.endpoint.vocabulary,
            salt=f"{job.salt}\n{point}",
            phase=phase,
            prefix=scenario.prefix,
            seed=workload.seed,
            overhead=fit.overhead,
            per_word=fit.per_word,
            words=fit.words,
        )

    def requests(phase: str) -> Iterator[Request]:
        if isinstance(scenario, Conversation):
            return iter(())
        arrival = workload.arrival if point.rate else ""
        return Requests(
            scenario, prompts(phase), seed=workload.seed, phase=phase, arrival=arrival, part=job.part, parts=job.parts
        )

    def talk(lane: int) -> Conversations:
        assert isinstance(scenario, Conversation)
        return Conversations(scenario, both, lane, point.concurrency or 1, per_turn=fit.per_turn)

    async def started() -> float:
        say({"ready": True})
        return await orders.started() if orders else monotonic()

    both = prompts("conversation")
    written = spool.Spool(job.spool)
    run = Run(job, requests("warm-up"), requests("window"), written, lambda phase: say({"phase": phase}))
    halting = asyncio.create_task(_halt(run, orders.stopped)) if orders else None
    try:
        loop = _loop(job, run, dialer, talk if isinstance(scenario, Conversation) else None)
        return await drive(run, loop, started)
    finally:
        if halting is not None:
            halting.cancel()
        written.close()


async def _halt(run: Run, told: asyncio.Event) -> None:
    await told.wait()
    run.halt()


async def _fit(job: Job, dialer: Dialer, say: Callable[[dict[str, Any]], None], orders: Orders | None) -> Fit:
    """Ask the server how it counts words, once for all workers, so that they make the same prompts."""
    if job.part and orders is not None:
        return Fit.from_json(await orders.fitted())
    found = await calibrate(job, dialer)
    say({"fit": asdict(found)})
    return found


def _loop(job: Job, run: Run, dialer: Dialer, talk: Callable[[int], Conversations] | None) -> Loop:
    point = job.load_point
    if point.rate is None:
        return ClosedLoop(run, dialer, talk)
    offsets = arrivals.share(arrivals.offsets(point, job.workload), job.workload.warmup, job.part, job.parts)
    burst = -(-arrivals.burst(point, job.workload) // job.parts)
    return OpenLoop(run, dialer, offsets, point.rate / job.parts, burst)


def _timed(job: Job) -> int:
    """Return of how many connections one is timed, so that about as many are as are enough."""
    lanes = len(job.lanes) or 2 * (job.load_point.rate or 0.0) / job.parts
    return max(1, round(lanes / _TIMED_CONNECTIONS))


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return factory


def _first_line() -> tuple[bytes, bytes]:
    """Return the first line, and what was read behind it."""
    read = b""
    while b"\n" not in read and (data := os.read(_STDIN, 1 << 16)):
        read += data
    line, _, rest = read.partition(b"\n")
    return line, rest


def _end_without_trace(job: Job) -> None:
    """End with the parent: nobody reads the answer, and the server must not be loaded any longer."""
    for path in (job.spool, job.records, job.stderr):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        Path(job.folder).rmdir()
        Path(job.folder).parent.rmdir()
    os._exit(1)


def _end_on_a_defect(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """End the process when a callback raised: the books would be wrong from here on."""
    error = context.get("exception")
    if error is not None and not isinstance(error, OSError):
        traceback.print_exception(error)
        os._exit(1)


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _raise_open_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
