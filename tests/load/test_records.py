from __future__ import annotations

import json
from array import array
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.core import LoadPoint, Observation, RequestRecord
from autotuner.errors import RunStoreError
from autotuner.load import records

instants = st.integers(0, 10**9).map(lambda microseconds: 5000.0 + microseconds / 1e6)
counts = st.integers(0, 2**31 - 1)


@st.composite
def request_records(draw: st.DrawFn) -> RequestRecord:
    number = draw(st.integers(0, 6))
    return RequestRecord(
        index=draw(counts),
        scheduled=draw(instants),
        sent=draw(instants),
        finished=draw(instants),
        chunk_times=array("d", draw(st.lists(instants, min_size=number, max_size=number))),
        chunk_tokens=array("I", draw(st.lists(counts, min_size=number, max_size=number))),
        requested_prompt=draw(counts),
        requested_output=draw(counts),
        prompt_tokens=draw(st.none() | counts),
        output_tokens=draw(st.none() | counts),
        first_output=draw(st.none() | instants),
        finish_reason=draw(st.none() | st.sampled_from(["stop", "length"])),
        error=draw(st.none() | st.sampled_from(["reset", "http-429"])),
        cached_tokens=draw(st.none() | counts),
        client_delay=draw(st.none() | st.integers(0, 10**7).map(lambda microseconds: microseconds / 1e6)),
        token_counts=draw(st.none() | st.sampled_from(["usage", "events"])),
    )


points = st.sampled_from([LoadPoint("D(1,2)", concurrency=4), LoadPoint("U(5,5)", rate=2.5)])


@settings(max_examples=60)
@given(st.lists(request_records(), max_size=8), points, st.none() | st.text(max_size=9))
def test_what_is_saved_is_read_back_to_the_microsecond(
    tmp_path_factory: pytest.TempPathFactory,
    request_list: list[RequestRecord],
    point: LoadPoint,
    abort_reason: str | None,
):
    path = tmp_path_factory.getbasetemp() / "records.npz"
    observation = Observation(
        point,
        tuple(request_list),
        (1.5, 2.25),
        0.001,
        {"preemptions": 2.0},
        3,
        abort_reason,
        "met",
        7,
        2,
        True,
        0.0005,
        0.25,
        {"reset": "it hung up"},
    )
    records.save(path, observation)
    loaded = records.read(path)
    assert (loaded.load_point, loaded.window, loaded.loop_lag_p99) == (point, (1.5, 2.25), 0.001)
    assert (loaded.counters, loaded.cut_off_requests, loaded.abort_reason, loaded.stop_reason) == (
        {"preemptions": 2.0},
        3,
        abort_reason,
        "met",
    )
    assert (loaded.due_requests, loaded.held_back_requests, loaded.loop_lag_mean, loaded.client_cpu) == (
        7,
        2,
        0.0005,
        0.25,
    )
    assert loaded.nonstationary_arrivals
    assert loaded.error_messages == {"reset": "it hung up"}
    for before, after in zip(request_list, loaded.records, strict=True):
        for name in RequestRecord.__slots__:
            value, other = getattr(before, name), getattr(after, name)
            if name in ("scheduled", "sent", "finished", "first_output", "chunk_times"):
                assert other == (None if value is None else pytest.approx(value, abs=1e-6))
            else:
                assert other == value


def test_what_was_saved_before_there_were_client_delays_and_cached_tokens_is_read(tmp_path: Path):
    record = RequestRecord(0, 1.0, 1.0, 2.0, array("d", [1.5]), array("I", [1]), 5, 1, 5, 1, cached_tokens=3)
    path = tmp_path / "r.npz"
    records.save(path, Observation(LoadPoint("D(5,1)", concurrency=1), (record,), (0, 1), 0.0, loop_lag_mean=0.1))
    with np.load(path) as saved:
        columns = dict(saved)
    about = json.loads(columns["about"].tobytes())
    for name in ("cached_tokens", "client_delay"):
        del columns[name]
    for name in ("loop_lag_mean", "client_cpu"):
        del about[name]
    columns["about"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    np.savez_compressed(path, **columns)
    loaded = records.read(path)
    assert (loaded.loop_lag_mean, loaded.client_cpu) == (None, None)
    assert (loaded.records[0].cached_tokens, loaded.records[0].client_delay) == (None, None)
    assert loaded.records[0].prompt_tokens == 5


def test_a_record_with_10000_chunks_takes_less_than_8_bytes_each(tmp_path: Path):
    times = array("d", (100 + number * 0.02 + number * number % 97 * 1e-6 for number in range(10_000)))
    record = RequestRecord(0, 99.0, 99.0, 300.0, times, array("I", [1]) * 10_000, 5, 10_000)
    records.save(tmp_path / "r.npz", Observation(LoadPoint("D(5,5)", concurrency=1), (record,), (0, 1), 0.0))
    assert (tmp_path / "r.npz").stat().st_size < 80_000


def test_what_is_not_a_record_file_is_refused(tmp_path: Path):
    for content in (b"", b"PK\x03\x04 torn", b"text"):
        (tmp_path / "r.npz").write_bytes(content)
        with pytest.raises(RunStoreError, match=r"r\.npz"):
            records.read(tmp_path / "r.npz")
    with pytest.raises(RunStoreError):
        records.read(tmp_path / "absent.npz")


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path):
    observation = Observation(LoadPoint("D(5,5)", concurrency=1), (), (0, 1), 0.0)
    with pytest.raises(RunStoreError, match="cannot be written"):
        records.save(tmp_path / "absent" / "r.npz", observation)
