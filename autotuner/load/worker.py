"""`python -m autotuner.load.worker`: drives one load point in a process of its own.

Reads a job as one line of JSON on stdin, then the commands of worker_protocol.py, and exits when
stdin ends. Writes one JSON object per line on stdout: readiness, each phase, and the outcome at the
end. Request records are written to the job's folder as requests finish.
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

from autotuner.load import spool
from autotuner.load.connection import Dialer
from autotuner.load.driver import ArrivalLoop, DriveOutcome, LoadPointRun, drive
from autotuner.load.job import Job
from autotuner.load.loops import ClosedLoop, OpenLoop
from autotuner.load.priority import driver_priority, end_with_parent
from autotuner.load.worker_protocol import CommandReader
from autotuner.workload import arrivals, scenarios
from autotuner.workload.conversations import Conversations
from autotuner.workload.prompts import Prompts
from autotuner.workload.requests import Request, RequestStream
from autotuner.workload.scenarios import ConversationScenario, TraceReplay

_STDIN = 0
_TIMESTAMPED_CONNECTIONS = 64


def main() -> None:
    """Run the job read from stdin."""
    end_with_parent()
    line, leftover = _read_first_line()
    job = Job.from_json(line)
    _raise_open_file_limit()
    job.spool_path.touch()
    transcriber = spool.start_transcriber(job.spool_path, job.records_path)
    try:
        with driver_priority(), asyncio.Runner(loop_factory=_event_loop_factory()) as runner:
            outcome = runner.run(_drive_under_parent(job, leftover))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(transcriber, signal.SIGKILL)
        os.waitpid(transcriber, 0)
    spool.transcribe(job.spool_path, job.records_path)
    _send({"outcome": asdict(outcome)})


async def _drive_under_parent(job: Job, leftover: bytes) -> DriveOutcome:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_exit_on_exception)
    commands = CommandReader(_STDIN, leftover, lambda: _exit_with_parent(job))
    loop.add_reader(_STDIN, commands.receive)
    return await drive_load_point(job, _send, commands)


async def drive_load_point(
    job: Job, send: Callable[[dict[str, Any]], None], commands: CommandReader | None = None
) -> DriveOutcome:
    """Drive one load point, starting at once without `commands`, and leave its exchanges in the spool."""
    workload, point = job.workload, job.load_point
    dialer = Dialer(
        job.endpoint.address, workload.request_timeout, tls=job.endpoint.tls, timestamp_every=_timestamp_every(job)
    )
    scenario = scenarios.parse(point.scenario)
    fit = job.token_fit

    def prompts(phase: str) -> Prompts:
        return Prompts(
            kind=workload.endpoint,
            model=job.endpoint.model,
            vocab_size=job.endpoint.vocab_size,
            salt=workload.prompt_salt or f"{job.salt}\n{point}",
            phase=phase,
            prefix_tokens=scenario.prefix_tokens,
            block_tokens=scenario.block_tokens if isinstance(scenario, TraceReplay) else 0,
            seed=workload.seed,
            overhead_tokens=fit.overhead_tokens,
            tokens_per_word=fit.tokens_per_word,
            words=fit.words,
            form=workload.request_form,
        )

    def requests(phase: str) -> Iterator[Request]:
        if isinstance(scenario, ConversationScenario):
            return iter(())
        arrival = workload.arrival if point.rate else ""
        return RequestStream(
            scenario,
            prompts(phase),
            seed=workload.seed,
            phase=phase,
            arrival=arrival,
            worker_index=job.worker_index,
            worker_count=job.worker_count,
        )

    def conversations_for_user(user: int) -> Conversations:
        assert isinstance(scenario, ConversationScenario)
        users, overhead = point.concurrency or 1, fit.turn_overhead_tokens
        return Conversations(scenario, conversation_prompts, user, users, turn_overhead_tokens=overhead)

    async def wait_for_start() -> float:
        send({"ready": True})
        return await commands.wait_for_start() if commands else monotonic()

    # one for warm-up and window, because a conversation may span both
    conversation_prompts = prompts("conversation")
    exchanges = spool.Spool(job.spool_path)
    run = LoadPointRun(job, requests("warm-up"), requests("window"), exchanges, lambda phase: send({"phase": phase}))
    halt_task = asyncio.create_task(_halt_on_request(run, commands.stop_requested)) if commands else None
    try:
        is_conversation = isinstance(scenario, ConversationScenario)
        loop = _arrival_loop(job, run, dialer, conversations_for_user if is_conversation else None)
        return await drive(run, loop, wait_for_start)
    finally:
        if halt_task is not None:
            halt_task.cancel()
        exchanges.close()


async def _halt_on_request(run: LoadPointRun, stop_requested: asyncio.Event) -> None:
    await stop_requested.wait()
    run.halt()


def _arrival_loop(
    job: Job, run: LoadPointRun, dialer: Dialer, conversations_for_user: Callable[[int], Conversations] | None
) -> ArrivalLoop:
    point = job.load_point
    if point.rate is None:
        return ClosedLoop(run, dialer, conversations_for_user)
    offsets = arrivals.worker_share(
        arrivals.offsets(point, job.workload), job.workload.warmup, job.worker_index, job.worker_count
    )
    burst = -(-arrivals.burst_size(point, job.workload) // job.worker_count)
    return OpenLoop(run, dialer, offsets, point.rate / job.worker_count, burst)


def _timestamp_every(job: Job) -> int:
    """One connection in this many gets kernel timestamps, so that about `_TIMESTAMPED_CONNECTIONS` do."""
    connections = len(job.closed_loop_users) or 2 * (job.load_point.rate or 0.0) / job.worker_count
    return max(1, round(connections / _TIMESTAMPED_CONNECTIONS))


def _event_loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return factory


def _read_first_line() -> tuple[bytes, bytes]:
    """The first line of stdin, and what was read after it."""
    buffer = b""
    while b"\n" not in buffer and (data := os.read(_STDIN, 1 << 16)):
        buffer += data
    line, _, leftover = buffer.partition(b"\n")
    return line, leftover


def _exit_with_parent(job: Job) -> None:
    """Exit because the parent has: nobody reads the outcome, and the server must not stay under load."""
    for path in (job.spool_path, job.records_path, job.stderr_path):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        Path(job.folder).rmdir()
        Path(job.folder).parent.rmdir()
    os._exit(1)


def _exit_on_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Exit when a callback raised: the request counts would be wrong from here on."""
    error = context.get("exception")
    if error is not None and not isinstance(error, OSError):
        traceback.print_exception(error)
        os._exit(1)


def _send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _raise_open_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
