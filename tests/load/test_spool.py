from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.core import RequestRecord
from autotuner.load import spool
from autotuner.load.connection import Exchange
from autotuner.workload.requests import Request

RAW, RECORDS = "exchanges.spool", "records.bin"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


def exchange(
    index: int = 0, *, tokens: int = 3, finish: str = "length", requested: int = 3, **changes: Any
) -> Exchange:
    built = Exchange(Request(index, 7, requested, b""), 10.0, warmup=changes.pop("warmup", False))
    events = [{"choices": [{"text": "a", "finish_reason": finish if n == tokens - 1 else None}]} for n in range(tokens)]
    pieces = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    built.pieces = [HEAD % sum(map(len, pieces)), *pieces]
    built.times = [11.0 + number for number in range(len(built.pieces))]
    built.status, built.sent, built.finished = 200, 10.5, built.times[-1]
    for name, value in changes.items():
        setattr(built, name, value)
    return built


def written(folder: Path, *exchanges: Exchange) -> list[RequestRecord]:
    raw, records = folder / RAW, folder / RECORDS
    out = spool.Spool(raw)
    for one in exchanges:
        out.add(one)
    out.close()
    spool.transcribe(raw, records)
    return spool.read(records)


def test_an_exchange_becomes_a_record(tmp_path: Path):
    (record,) = written(tmp_path, exchange(4))
    assert record.index == 4
    assert (record.scheduled, record.sent, record.finished) == (10.0, 10.5, 14.0)
    assert list(record.chunk_times) == [12.0, 13.0, 14.0]
    assert list(record.chunk_tokens) == [1, 1, 1]
    assert (record.requested_prompt, record.requested_output) == (7, 3)
    assert record.finish_reason == "length"
    assert record.error is None
    assert record.ttft == 1.5


def test_the_clients_delay_is_that_of_the_read_that_brought_the_first_token(tmp_path: Path):
    untimed, timed = written(tmp_path, exchange(0), exchange(1, delays=[0.5, 0.25, None, 0.125]))
    assert untimed.client_delay is None
    assert timed.client_delay == 0.25


@pytest.mark.parametrize("changes", [{"status": 500}, {"times": [], "pieces": [], "delays": []}])
def test_without_a_first_token_the_client_has_no_delay(tmp_path: Path, changes: dict[str, Any]):
    (record,) = written(tmp_path, exchange(**{"delays": [0.5] * 4, **changes}))
    assert record.client_delay is None


def test_what_the_server_says_it_had_cached_is_kept(tmp_path: Path):
    built = exchange()
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    built.pieces[-1] = b"data: " + json.dumps({"choices": [{"text": "a"}], "usage": usage}).encode() + b"\n\n"
    built.pieces[0] = HEAD % sum(map(len, built.pieces[1:]))
    assert written(tmp_path, built)[0].cached_tokens == 4


def test_a_stop_before_the_length_that_was_asked_for_is_an_early_stop(tmp_path: Path):
    """7. the server ignored ignore_eos."""
    (record,) = written(tmp_path, exchange(finish="stop", requested=4))
    assert record.error == "early-stop"
    assert len(record.chunk_times) == 3


def test_a_stop_at_the_length_that_was_asked_for_is_none(tmp_path: Path):
    assert written(tmp_path, exchange(finish="stop", requested=3))[0].error is None


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_a_status_is_the_class_of_the_error(tmp_path: Path, status: int):
    (record,) = written(tmp_path, exchange(status=status))
    assert record.error == f"http-{status}"
    assert len(record.chunk_times) == 0


@pytest.mark.parametrize("status", [200, 201, 203, 206])
def test_every_status_of_success_is_an_answer(tmp_path: Path, status: int):
    assert written(tmp_path, exchange(status=status))[0].error is None


def test_the_first_message_of_each_class_of_error_is_kept(tmp_path: Path):
    def rejected(index: int, code: int, message: str) -> Exchange:
        body = json.dumps({"error": {"message": message}}).encode()
        head = b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n" % (code, len(body))
        return exchange(index, status=code, times=[11.0], pieces=[head + body])

    unfinished = exchange(3)
    unfinished.pieces = [HEAD % 7, b"data: x"]
    unfinished.times = [11.0, 12.0]
    written(tmp_path, rejected(0, 429, "slowly"), rejected(1, 429, "please"), rejected(2, 500, "oh"), unfinished)
    follower = spool.RecordFollower(tmp_path / RECORDS)
    follower.read_new()
    assert follower.error_messages == {"http-429": "slowly", "http-500": "oh", "malformed": "Not understood: x"}


@pytest.mark.parametrize("finish", ["length", "stop"])
@pytest.mark.parametrize("event", [b"ping", b"{nonsense", b'{"choices": 7}'])
def test_an_event_that_was_skipped_in_an_answer_is_quoted_and_no_error(tmp_path: Path, event: bytes, finish: str):
    answer = exchange(finish=finish)
    answer.pieces = [HEAD % 999, b"data: " + event + b"\n\n", *answer.pieces[1:]]
    answer.times = [11.0 + number for number in range(len(answer.pieces))]
    (record,) = written(tmp_path, answer)
    assert (record.error, len(record.chunk_times)) == (None, 3)
    follower = spool.RecordFollower(tmp_path / RECORDS)
    follower.read_new()
    assert follower.error_messages == {"skipped-event": f"Not understood: {event.decode()}"}


@pytest.mark.parametrize("error", ["reset", "timeout"])
def test_an_answer_cut_short_keeps_the_tokens_that_came(tmp_path: Path, error: str):
    cut = exchange(error=error)
    cut.times, cut.pieces = cut.times[:3], cut.pieces[:3]
    (record,) = written(tmp_path, cut)
    assert record.error == error
    assert list(record.chunk_times) == [12.0, 13.0]


def test_no_connection_is_a_record_without_chunks(tmp_path: Path):
    (record,) = written(tmp_path, exchange(status=0, error="connection-refused", times=[], pieces=[]))
    assert record.error == "connection-refused"
    assert record.ttft is None


def test_requests_of_the_warm_up_count_down(tmp_path: Path):
    assert [record.index for record in written(tmp_path, exchange(0, warmup=True), exchange(3, warmup=True))] == [
        -1,
        -4,
    ]


@settings(max_examples=25)
@given(st.data())
def test_records_that_were_cut_anywhere_are_completed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    folder = tmp_path_factory.mktemp("spool")
    all_records = written(folder, *(exchange(number, tokens=number + 1) for number in range(5)))
    records = folder / RECORDS
    content = records.read_bytes()
    os.truncate(records, data.draw(st.integers(0, len(content))))
    spool.transcribe(folder / RAW, records)
    assert records.read_bytes() == content
    assert [record.index for record in all_records] == [0, 1, 2, 3, 4]


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1), max_size=4))
def test_a_follower_reads_each_record_once_however_far_the_file_has_come(
    tmp_path_factory: pytest.TempPathFactory, shares: list[float]
):
    folder = tmp_path_factory.mktemp("spool")
    written(folder, *(exchange(number, tokens=number + 1) for number in range(5)))
    content = (folder / RECORDS).read_bytes()
    growing = folder / "growing.bin"
    follower = spool.RecordFollower(growing)
    records_read = follower.read_new()
    for share in (*sorted(shares), 1.0):
        growing.write_bytes(content[: round(share * len(content))])
        records_read += follower.read_new()
    assert [record.index for record in records_read] == [0, 1, 2, 3, 4]
    assert not follower.read_new()


def test_a_torn_last_exchange_is_left_out(tmp_path: Path):
    written(tmp_path, exchange(0), exchange(1))
    raw = tmp_path / RAW
    os.truncate(raw, raw.stat().st_size - 1)
    (tmp_path / RECORDS).unlink()
    spool.transcribe(raw, tmp_path / RECORDS)
    assert [record.index for record in spool.read(tmp_path / RECORDS)] == [0]


def test_the_follower_ends_with_its_parent(tmp_path: Path):
    """A parent that is not ours counts as gone: what is there is written, and nothing is waited for."""
    raw, records = tmp_path / RAW, tmp_path / RECORDS
    written(tmp_path, exchange(0), exchange(1))
    records.unlink()
    spool.transcribe(raw, records, parent_pid=os.getppid() + 1_000_000)
    assert len(spool.read(records)) == 2


def test_a_full_disk_is_an_error_at_the_end_and_not_before(tmp_path: Path):
    out = spool.Spool(Path("/dev/full"))
    for number in range(2000):
        out.add(exchange(number))
    with pytest.raises(OSError, match="No space left"):
        out.close()
