"""Raw exchanges on disk, and their decoding into request records outside the measured path.

The driver appends each finished exchange to the spool undecoded. The transcriber, a process of idle
priority, follows the spool and writes one record frame per spool frame; after the load point the
worker itself writes the missing ones. Both files hold frames of a 4-byte length and a marshalled
tuple, read by the same interpreter that wrote them.
"""

from __future__ import annotations

import contextlib
import errno
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

from autotuner.core import EARLY_STOP_ERROR, SKIPPED_EVENT, RequestRecord
from autotuner.endpoints.error_text import error_text
from autotuner.load.priority import end_with_parent, set_idle_priority
from autotuner.load.response import extract_body, is_success
from autotuner.load.stream import decode

if TYPE_CHECKING:
    from autotuner.load.connection import Exchange

_FRAME_LENGTH = struct.Struct("<I")
_FLUSH_BYTES = 1 << 17
_POLL_SECONDS = 0.05
MAX_QUEUED_BYTES = 128 << 20
"""What may wait in memory for a slow disk."""


class Spool:
    """Appends exchanges to a file from a thread, so that a slow disk never blocks the driver."""

    def __init__(self, path: Path) -> None:
        self.pending_frames: list[bytes] = []
        self.pending_bytes = 0
        self.write_error: OSError | None = None
        self.queued_bytes = 0
        self.queue: SimpleQueue[bytes | None] = SimpleQueue()
        self.file = path.open("wb", buffering=0)
        self.thread = Thread(target=self._write_queued, name="spool", daemon=True)
        self.thread.start()

    def add(self, exchange: Exchange) -> None:
        """Append one exchange; warm-up exchanges have indexes from -1 down."""
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
        """Queue the pending frames for writing."""
        if self.pending_frames:
            data = b"".join(self.pending_frames)
            if self.queued_bytes > MAX_QUEUED_BYTES:
                self.write_error = self.write_error or OSError(errno.ENOBUFS, "the disk is too slow for the records")
            else:
                self.queued_bytes += len(data)
                self.queue.put(data)
            self.pending_frames.clear()
            self.pending_bytes = 0

    def close(self) -> None:
        """Write out what is pending; OSError if not everything could be written."""
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
            self.queued_bytes -= len(data)


def transcribe(spool_path: Path, records_path: Path, *, parent_pid: int | None = None) -> None:
    """Decode the spool frames that `records_path` lacks; with `parent_pid`, follow it while that is our parent."""
    frame_count, size = _count_frames(records_path)
    with spool_path.open("rb") as source, records_path.open("r+b" if records_path.exists() else "w+b") as target:
        target.truncate(size)
        target.seek(size)
        for _ in range(frame_count):
            source.seek(_FRAME_LENGTH.unpack(source.read(_FRAME_LENGTH.size))[0], os.SEEK_CUR)
        for frame in _read_frames(source, parent_pid):
            target.write(_pack_frame(_record_fields(*frame)))
            if parent_pid is not None:
                target.flush()


class RecordFollower:
    """Reads the request records of a file that `transcribe` is still writing.

    `error_messages` maps each error class, and SKIPPED_EVENT, to the first message of that class, which may repeat
    secrets.
    """

    def __init__(self, records_path: Path) -> None:
        self.records_path = records_path
        self.offset = 0
        self.error_messages: dict[str, str] = {}

    def read_new(self) -> list[RequestRecord]:
        """Return the records written since the last call, in the order in which the requests ended."""
        new_records: list[RequestRecord] = []
        with contextlib.suppress(FileNotFoundError), self.records_path.open("rb") as source:
            source.seek(self.offset)
            for *fields, error_message in _read_frames(source, None):
                record = _request_record(*fields)
                new_records.append(record)
                if error_message:
                    name = SKIPPED_EVENT if record.error in (None, EARLY_STOP_ERROR) else record.error
                    self.error_messages.setdefault(name, error_message)
                self.offset = source.tell()
        return new_records


def read(records_path: Path) -> list[RequestRecord]:
    """Read all request records of a file that `transcribe` wrote."""
    return RecordFollower(records_path).read_new()


def start_transcriber(spool_path: Path, records_path: Path) -> int:
    """Fork a process of idle priority that follows `spool_path`, and return its id."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        end_with_parent()
        set_idle_priority()
        transcribe(spool_path, records_path, parent_pid=parent)
        status = 0
    finally:
        os._exit(status)


def _read_frames(file: BinaryIO, parent_pid: int | None) -> Iterator[Any]:
    """Yield each complete frame; while the writer is the parent process, wait for more at the end of the file.

    It ends when the parent has, or at once with `parent_pid` None; a frame cut short at the end is left out.
    """
    while True:
        start = file.tell()
        header = file.read(_FRAME_LENGTH.size)
        if len(header) == _FRAME_LENGTH.size:
            (length,) = _FRAME_LENGTH.unpack(header)
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
    """Number of complete frames in a file, and their size in bytes."""
    frames = size = 0
    with contextlib.suppress(FileNotFoundError), records_path.open("rb") as source:
        file_size = os.fstat(source.fileno()).st_size
        while len(header := source.read(_FRAME_LENGTH.size)) == _FRAME_LENGTH.size:
            frame_end = source.seek(_FRAME_LENGTH.unpack(header)[0], os.SEEK_CUR)
            if frame_end > file_size:
                break
            frames, size = frames + 1, frame_end
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
    """Decode a raw exchange into the fields of a `RequestRecord` and its error message."""
    body = extract_body(times, pieces)
    error_message = ""
    if status and not is_success(status):
        error = error if error in ("reset", "timeout") else f"http-{status}"
        error_message = error_text(b"".join(body[1]).decode("utf-8", "replace"))
        body = [], []
    response = decode(*body, requested_output)
    tokens = response.output_tokens if response.output_tokens is not None else sum(response.chunk_tokens)
    stopped_early = response.finish_reason == "stop" and tokens < requested_output
    return (
        index,
        scheduled,
        sent,
        finished,
        response.chunk_times.tobytes(),
        response.chunk_tokens.tobytes(),
        requested_prompt,
        requested_output,
        response.prompt_tokens,
        response.output_tokens,
        response.first_output,
        response.finish_reason,
        error or response.error or (EARLY_STOP_ERROR if stopped_early else None),
        response.cached_tokens,
        delays[times.index(response.chunk_times[0])] if delays and response.chunk_times else None,
        response.token_counts,
        error_message or ("" if error else response.error_message),
    )


def _request_record(
    index: int, scheduled: float, sent: float, finished: float, times: bytes, tokens: bytes, *rest: Any
) -> RequestRecord:
    chunk_times, chunk_tokens = array("d", times), array("I", tokens)
    return RequestRecord(index, scheduled, sent, finished, chunk_times, chunk_tokens, *rest)
