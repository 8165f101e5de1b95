"""What a trace file says, and what of it can be replayed."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner import traces
from autotuner.errors import ConfigError

ROW = st.tuples(st.integers(1, 10**6), st.integers(1, 10**6), st.floats(-1e9, 1e9))


def write(folder: Path, *lines: str) -> str:
    path = folder / "trace.jsonl"
    path.write_text("\n".join(lines))
    return str(path)


@given(st.lists(ROW, min_size=1, max_size=20))
def test_every_row_comes_back_with_its_time_from_the_first(rows: list[tuple[int, int, float]]):
    lines = [json.dumps({"timestamp": t, "input_length": i, "output_length": o}) for i, o, t in rows]
    with tempfile.TemporaryDirectory() as folder:
        trace = traces.read_trace(write(Path(folder), *lines))
    assert trace.request_lengths == tuple((prompt, output) for prompt, output, _ in rows)
    assert trace.timestamps == tuple(time - rows[0][2] for _, _, time in rows)


def test_a_trace_with_a_row_without_a_time_has_none(tmp_path: Path):
    timed = '{"timestamp": 1, "input_length": 5, "output_length": 5}'
    assert traces.read_trace(write(tmp_path, timed, '{"input_length": 5, "output_length": 5}')).timestamps == ()


def test_its_own_rate_is_the_mean_over_its_time(tmp_path: Path):
    rows = [f'{{"timestamp": {time}, "input_length": 5, "output_length": 5}}' for time in (100, 101, 101, 102, 108)]
    trace = traces.read_trace(write(tmp_path, *rows))
    assert (trace.seconds, trace.rate) == (8.0, 0.5)


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        "{}",
        '{"input_length": 0, "output_length": 1}',
        '{"input_length": "x"}',
        '{"input_length": 1e999, "output_length": 1}',
        '{"input_length": 5, "output_length": 5, "timestamp": "noon"}',
        '{"input_length": 5, "output_length": 5, "timestamp": NaN}',
        '{"input_length": 5, "output_length": 5, "timestamp": null}',
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: str):
    with pytest.raises(ConfigError, match="Line 2"):
        traces.read_trace(write(tmp_path, '{"input_length": 5, "output_length": 5}', line))


def test_an_empty_trace_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="no requests"):
        traces.read_trace(write(tmp_path, ""))


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"'/nowhere/trace\.jsonl' cannot be read"):
        traces.read_trace("/nowhere/trace.jsonl")
