"""Latencies read as arrays are those of the request records."""

import math
from dataclasses import replace

import pytest

from autotuner.core import LoadPoint, Observation
from autotuner.load import records
from autotuner.load.latencies import read_latencies
from autotuner.scoring.slo import request_metric
from autotuner.scoring.window import error_class, records_in_window
from tests.factories import failed, record

REQUESTS = (
    record(4.0, index=-1),
    record(0.5, ttft=0.2, scheduled=0.3),
    record(1.0, tokens=1),
    failed(1.5),
    record(2.0, gap=0.000001),
    record(2.5, chunk_tokens=(3,) + (2,) * 10, output_tokens=None),
    record(3.0, chunk_times=(), chunk_tokens=()),
    record(3.2, output_tokens=40),
    record(11.0),
    record(9.9, ttft=0.31, scheduled=9.8),
)


@pytest.mark.parametrize("load", [{"concurrency": 4}, {"rate": 2.0}])
@pytest.mark.parametrize("abort_reason", [None, "too many errors"])
def test_latencies_are_those_of_the_records_due_in_the_window(tmp_path, load, abort_reason):
    observation = Observation(LoadPoint("D(1,1)", **load), REQUESTS, (0.0, 10.0), 0.0, abort_reason=abort_reason)
    records.save(tmp_path / "records-1.npz", observation)
    latencies = read_latencies(tmp_path / "records-1.npz")
    expected = sorted(records_in_window(records.read(tmp_path / "records-1.npz")), key=lambda each: each.sent)
    assert latencies.sent.tolist() == pytest.approx([each.sent for each in expected])
    assert latencies.failed.tolist() == [error_class(each) is not None for each in expected]
    for name, metric in (("ttft", "ttft"), ("tpot", "tpot"), ("itl", "itl"), ("e2e", "latency")):
        values = [
            None if error_class(each) else request_metric(each, metric, open_loop="rate" in load) for each in expected
        ]
        assert getattr(latencies, name).tolist() == pytest.approx(
            [math.nan if value is None else value for value in values], nan_ok=True, abs=2e-6
        )


def test_a_load_point_without_requests_has_no_latencies(tmp_path):
    observation = Observation(LoadPoint("D(1,1)", concurrency=1), (), (0.0, 10.0), 0.0)
    records.save(tmp_path / "records-1.npz", observation)
    assert read_latencies(tmp_path / "records-1.npz").ttft.tolist() == []


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_a_value_error(tmp_path, content):
    path = tmp_path / "records-1.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError):
        read_latencies(path)


def test_a_record_whose_answer_never_came_leaves_the_others_in_place(tmp_path):
    """Indices of first and last chunks do not shift past requests without chunks, at the end either."""
    requests = (record(0.1, ttft=0.1), failed(0.2), replace(record(0.3, ttft=0.3)), failed(0.4))
    observation = Observation(LoadPoint("D(1,1)", concurrency=1), requests, (0.0, 10.0), 0.0)
    records.save(tmp_path / "records-1.npz", observation)
    assert read_latencies(tmp_path / "records-1.npz").ttft.tolist() == pytest.approx(
        [0.1, math.nan, 0.3, math.nan], nan_ok=True
    )
