"""Raw exchanges on disk, and their way from there to request records, off the measured path.

The driver hands each finished exchange over as it is, to be appended to the spool. A second process of idle
priority follows it and writes one record frame per spool frame; when the load point is over
the worker itself writes the frames that are still missing. Both files hold frames of a
4-byte length and a marshalled tuple, read by the same interpreter that wrote them.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import struct
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, BinaryIO

from autotuner.core import RequestRecord
from autotuner.load.priority import set_idle_priority
from autotuner.load.response import extract_body
from autotuner.load.stream import decode

if TYPE_CHECKING:
    from autotuner.load.connection import Exchange

_FRAME_LENGTH = struct.Struct("<I")
_FLUSH_BYTES = 1 << 17
_POLL_SECONDS = 0.05


class Spool:
    """Appends exchanges to a file from a thread of its own, so that a slow disk never stops the driver."""

    def __init__(self, path: Path) -> None:
        self.pending_frames: list[bytes] = []
        self.pending_bytes = 0
        self.write_error: OSError | None = None
        self.queue: SimpleQueue[bytes | None] = SimpleQueue()
        self.file = path.open("wb", buffering=0)
        self.thread = Thread(target=self._write_queued, name="spool", daemon=True)
        self.thread.start()

    def add(self, exchange: Exchange) -> None:
        """Append one exchange; those of the warm-up count down from -1."""
        request = exchange.request
        frame = _pack_frame(
            (
                exchange.index,
                exchange.scheduled,
                exchange.sent,
                exchange.finished,
                request.prompt_tokens,
                request.output_tokens,
                exchange.status,
                exchange.error,
                exchange.times,
                exchange.pieces,
                exchange.delays,
            )
        )
        self.pending_frames.append(frame)
        self.pending_bytes += len(frame)
        if self.pending_bytes > _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Give the thread what has been collected."""
        if self.pending_frames:
            self.queue.put(b"".join(self.pending_frames))
            self.pending_frames.clear()
            self.pending_bytes = 0

    def close(self) -> None:
        """Write out what is left; OSError when the disk did not take everything."""
        self.flush()
        self.queue.put(None)
        self.thread.join()
        self.file.close()
        if self.write_error is not None:
            raise self.write_error

    def _write_queued(self) -> None:
        while (data := self.queue.get()) is not None:
            view = memoryview(data)
            while view and self.write_error is None:
                try:
                    view = view[self.file.write(view) :]
                except OSError as error:
                    self.write_error = error


def transcribe(spool_path: Path, records_path: Path, *, parent_pid: int | None = None) -> None:
    """Write the record frames that `records` lacks; with `follow`, go on while that process is our parent."""
    done, size = _count_frames(records_path)
    with spool_path.open("rb") as source, records_path.open("r+b" if records_path.exists() else "w+b") as target:
        target.truncate(size)
        target.seek(size)
        for _ in range(done):
            source.seek(_FRAME_LENGTH.unpack(source.read(_FRAME_LENGTH.size))[0], os.SEEK_CUR)
        for frame in _read_frames(source, parent_pid):
            target.write(_pack_frame(_record_fields(*frame)))
            if parent_pid is not None:
                target.flush()


class RecordFollower:
    """Reads the request records that `transcribe` writes, while it does."""

    def __init__(self, records_path: Path) -> None:
        self.records_path = records_path
        self.offset = 0

    def read_new(self) -> list[RequestRecord]:
        """Return the records written since the last time, in the order in which the requests ended."""
        found: list[RequestRecord] = []
        with contextlib.suppress(FileNotFoundError), self.records_path.open("rb") as source:
            source.seek(self.offset)
            for frame in _read_frames(source, None):
                found.append(_request_record(*frame))
                self.offset = source.tell()
        return found


def read(records_path: Path) -> list[RequestRecord]:
    """Read all request records that `transcribe` wrote."""
    return RecordFollower(records_path).read_new()


def start_transcriber(spool_path: Path, records_path: Path) -> int:
    """Fork a process that follows `spool` on time nobody else wants, and return its id."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        set_idle_priority()
        transcribe(spool_path, records_path, parent_pid=parent)
        status = 0
    finally:
        os._exit(status)


def _read_frames(file: BinaryIO, parent_pid: int | None) -> Iterator[Any]:
    while True:
        start = file.tell()
        head = file.read(_FRAME_LENGTH.size)
        if len(head) == _FRAME_LENGTH.size:
            (length,) = _FRAME_LENGTH.unpack(head)
            content = file.read(length)
            if len(content) == length:
                yield marshal.loads(content)
                continue
        if parent_pid is None or os.getppid() != parent_pid:
            return
        file.seek(start)
        time.sleep(_POLL_SECONDS)


def _pack_frame(content: tuple[Any, ...]) -> bytes:
    # version 2 has binary floats and no back references, which cost a hash per value
    text = marshal.dumps(content, 2)
    return _FRAME_LENGTH.pack(len(text)) + text


def _count_frames(records_path: Path) -> tuple[int, int]:
    """Return how many whole frames a file holds, and their size in bytes."""
    frames = size = 0
    with contextlib.suppress(FileNotFoundError), records_path.open("rb") as source:
        end = os.fstat(source.fileno()).st_size
        while len(head := source.read(_FRAME_LENGTH.size)) == _FRAME_LENGTH.size:
            after = source.seek(_FRAME_LENGTH.unpack(head)[0], os.SEEK_CUR)
            if after > end:
                break
            frames, size = frames + 1, after
    return frames, size


def _record_fields(
    index: int,
    scheduled: float,
    sent: float,
    finished: float,
    requested_prompt: int,
    requested_output: int,
    status: int,
    error: str | None,
    times: list[float],
    pieces: list[bytes],
    delays: list[float | None] | None,
) -> tuple[Any, ...]:
    """Turn a raw exchange into the fields of a request record."""
    if status not in (0, 200):
        times, pieces = [], []
        error = error if error in ("reset", "timeout") else f"http-{status}"
    answer = decode(*extract_body(times, pieces))
    tokens = answer.output_tokens if answer.output_tokens is not None else sum(answer.chunk_tokens)
    early = answer.finish_reason == "stop" and tokens < requested_output
    return (
        index,
        scheduled,
        sent,
        finished,
        answer.chunk_times.tobytes(),
        answer.chunk_tokens.tobytes(),
        requested_prompt,
        requested_output,
        answer.prompt_tokens,
        answer.output_tokens,
        answer.first_output,
        answer.finish_reason,
        error or answer.error or ("early-stop" if early else None),
        answer.cached_tokens,
        delays[times.index(answer.chunk_times[0])] if delays and answer.chunk_times else None,
    )


def _request_record(
    index: int, scheduled: float, sent: float, finished: float, times: bytes, tokens: bytes, *rest: Any
) -> RequestRecord:
    chunk_times, chunk_tokens = array("d", times), array("I", tokens)
    return RequestRecord(index, scheduled, sent, finished, chunk_times, chunk_tokens, *rest)
