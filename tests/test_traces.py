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
        '{"input_length": -1, "output_length": 1}',
        '{"input_length": "x"}',
        '{"input_length": 1e999, "output_length": 1}',
        '{"input_length": 5, "output_length": 5, "timestamp": "noon"}',
        '{"input_length": 5, "output_length": 5, "timestamp": NaN}',
        '{"input_length": 5, "output_length": 5, "timestamp": true}',
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


# formats, told apart by their columns


def read(folder: Path, text: str, name: str = "trace") -> traces.RecordedTrace:
    path = folder / name
    path.write_text(text)
    return traces.read_trace(str(path))


def json_lines(*rows: object) -> str:
    return "\n".join(map(json.dumps, rows))


BURST_GPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45.5,GPT-4,1087,0,1087,API log
118,ChatGPT,417,276,693,Conversation log
"""
AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:16:46.6805900,879,55
"""
FORMATS: dict[str, tuple[str, str, list[tuple[int, int]], list[float], str | None]] = {
    "Mooncake": (
        json_lines(
            {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [*range(46, 60)]},
            {"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": [*range(46, 58), 60]},
        ),
        "Mooncake JSON lines",
        [(6955, 52), (6472, 26)],
        [0.0, 3.053],
        "ms",
    ),
    "Mooncake with ids in later rows only": (
        json_lines(
            {"timestamp": 0, "input_length": 600, "output_length": 5},
            {"timestamp": 1, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]},
        ),
        "Mooncake JSON lines",
        [(600, 5), (600, 5)],
        [0.0, 0.001],
        "ms",
    ),
    "Bailian": (
        json_lines(
            {"chat_id": 1, "timestamp": 61, "input_length": 30, "output_length": 9, "turn": 1, "hash_ids": [1, 2]},
            {"chat_id": 2, "timestamp": 161, "input_length": 33, "output_length": 9, "turn": 1, "hash_ids": [1, 2, 3]},
        ),
        "Bailian JSON lines",
        [(30, 9), (33, 9)],
        [0.0, 100.0],
        "s",
    ),
    "BurstGPT": (BURST_GPT, "BurstGPT CSV", [(472, 18), (417, 276)], [0.0, 113.0], "s"),
    "BurstGPT with its sessions, by a spreadsheet": (
        "\ufeffTimestamp;Session ID;Elapsed time;Model;Request tokens;Response tokens;Total tokens;Log Type\r\n"
        "2;a;1.5;GPT-4;10;20;30;API log\r\n3;a;1.5;GPT-4;11;21;32;API log\r\n",
        "BurstGPT CSV",
        [(10, 20), (11, 21)],
        [0.0, 1.0],
        "s",
    ),
    "Azure": (AZURE, "Azure LLM inference CSV", [(374, 44), (396, 109), (879, 55)], [0.0, 4.314579, 60.0], "date"),
    "Azure with time zones": (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:00.509930+00:00,2399,6\n",
        "Azure LLM inference CSV",
        [(2162, 5), (2399, 6)],
        [0.0, 0.5],
        "date",
    ),
    "AIPerf single turns": (
        json_lines(
            {"text": "a" * 40, "timestamp": 0, "output_length": 7}, {"text": "b", "timestamp": 2, "output_length": 8}
        ),
        "AIPerf JSON lines",
        [(10, 7), (1, 8)],
        [0.0, 0.002],
        "ms",
    ),
    "AIPerf messages": (
        json_lines(
            {
                "messages": [{"role": "system", "content": "a" * 8}, {"role": "user", "content": "b" * 8}],
                "output_length": 7,
            }
        ),
        "AIPerf JSON lines",
        [(4, 7)],
        [],
        None,
    ),
    "vLLM": (
        json_lines({"prompt": "a" * 41, "output_tokens": 7}, {"prompt": "", "output_tokens": 7}),
        "vLLM JSON lines",
        [(11, 7)],
        [],
        None,
    ),
    "a CSV of lengths": (
        "timestamp,input_length,output_length\n0.5,10,3\n0.75,11,4\n",
        "lengths",
        [(10, 3), (11, 4)],
        [0.0, 0.25],
        "s",
    ),
    "a JSON list of lengths": (
        json.dumps([{"prompt_tokens": 10, "completion_tokens": 3}, {"prompt_tokens": 11.0, "completion_tokens": "4"}]),
        "lengths",
        [(10, 3), (11, 4)],
        [],
        None,
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_told_by_its_columns(tmp_path: Path, name: str):
    text, format_name, lengths, times, unit = FORMATS[name]
    trace = read(tmp_path, text)
    assert (trace.format, trace.time_unit) == (format_name, unit)
    assert list(trace.request_lengths) == lengths
    assert list(trace.timestamps) == pytest.approx(times)


def test_what_was_found_is_said_in_one_line(tmp_path: Path):
    def said(text: str) -> str:
        return str(read(tmp_path, text).describe()).removeprefix(f"{tmp_path}/trace: ")

    assert said(BURST_GPT) == "BurstGPT CSV, 2 requests in 113 s (timestamps in s); 1 row without tokens skipped"
    assert said(AZURE) == "Azure LLM inference CSV, 3 requests in 60 s (dates)"
    assert said(FORMATS["Mooncake"][0]) == (
        "Mooncake JSON lines, 2 requests in 3.053 s (timestamps in ms); prefixes shared in blocks of 512 tokens"
    )
    assert said(FORMATS["Bailian"][0]).endswith("; prefixes shared in blocks of 16 tokens")
    assert said(FORMATS["vLLM"][0]) == (
        "vLLM JSON lines, 1 request; lengths estimated at 4 characters a token; 1 row without tokens skipped"
    )
    untimed = {"input_length": 5, "output_length": 5}
    assert said(json_lines({**untimed, "timestamp": 1}, untimed)) == (
        "lengths, 2 requests; no times, because line 2 has no timestamp"
    )


@pytest.mark.parametrize("row", ['{"a": 1}', "a,b\n1,2", '[{"a": 1}]'])
def test_an_unknown_format_is_refused_with_its_columns_and_the_known_ones(tmp_path: Path, row: str):
    with pytest.raises(ConfigError, match="has no known format") as caught:
        read(tmp_path, row)
    assert "Its columns are " in str(caught.value.why)
    assert "BurstGPT CSV, Azure LLM inference CSV" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("text", "place", "field"),
    [
        (BURST_GPT.replace("417", "many"), "Line 4", "'Request tokens' is not a number of tokens: 'many'"),
        (BURST_GPT + "9,GPT-4,5\n", "Line 5", "'Response tokens' is missing"),
        (AZURE.replace("2023-11-16 18:16", "yesterday"), "Line 4", "'TIMESTAMP' is neither a number nor a date"),
        (AZURE.replace("2023-11-16 18:16:46.6805900", "12.5"), "Line 4", "'TIMESTAMP' is another kind of time"),
        (json_lines({"prompt": "a", "output_tokens": 1}, {"prompt": "a"}), "Line 2", "'output_tokens' is missing"),
        (json_lines({"prompt": "a", "output_tokens": 1.5}), "Line 1", "'output_tokens' is not a number of tokens: 1.5"),
        (
            json_lines({"input_length": 5, "output_length": 5, "hash_ids": ["a"]}),
            "Line 1",
            "'hash_ids' is not a list of whole numbers",
        ),
        (json.dumps([{"conversations": []}, {"conversations": "hi"}]), "Entry 2", "'conversations' is not a list"),
        (json_lines({"turns": [{"text": "hi"}]}), "Line 1", "'output_length' is missing"),
    ],
)
def test_a_bad_row_is_named_with_its_field(tmp_path: Path, text: str, place: str, field: str):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{place} of the trace '{tmp_path}/trace' is not a request.")
    assert f"Field {field}" in str(caught.value.why)


@pytest.mark.parametrize("text", ['{"input_length": 1', '[{"input_length": 1}', "[{}, 5]", '{"a": 1}\n[1]'])
def test_broken_json_is_named_by_its_place(tmp_path: Path, text: str):
    with pytest.raises(ConfigError, match=r"^(Line 1|Line 2|Entry 2) of the trace"):
        read(tmp_path, text)


@pytest.mark.parametrize("row", [{"input_length": 0, "output_length": 4}, {"input_length": 3, "output_length": None}])
def test_rows_without_tokens_are_skipped_with_their_times_and_counted(tmp_path: Path, row: dict[str, int | None]):
    good = [{"timestamp": time, "input_length": 5, "output_length": 5} for time in (1.5, 2.0)]
    trace = read(tmp_path, json_lines({"timestamp": 0.5, **row}, *good, {"timestamp": 9.5, **row}))
    assert (trace.request_lengths, trace.timestamps, trace.skipped_rows) == (((5, 5), (5, 5)), (0.0, 0.5), 2)
    with pytest.raises(ConfigError, match="no requests"):
        read(tmp_path, json_lines(row))


# the unit of the timestamps


@pytest.mark.parametrize(
    ("times", "unit", "seconds"),
    [
        # written with a fraction, or a second apart
        ([0.0, 0.1, 2000.5], "s", 2000.5),
        ([0, 1, 2, 1000], "s", 1000.0),
        ([0, 0, 0], "s", 0.0),
        # whole numbers whose requests would otherwise be minutes apart
        ([0, 100, 200, 300], "ms", 0.3),
        ([0, 100_000, 200_000], "us", 0.2),
        ([0, 100_000_000, 200_000_000], "ns", 0.2),
        # Unix times
        ([1_700_000_000, 1_700_000_001], "s", 1.0),
        ([1_700_000_000_000, 1_700_000_000_500], "ms", 0.5),
        ([1_700_000_000_000_000, 1_700_000_000_500_000], "us", 0.5),
        (["1753780607550317897", "1753780608550317897"], "ns", 1.0),
    ],
)
def test_the_unit_of_plain_timestamps_is_told_by_their_size(
    tmp_path: Path, times: list[float | str], unit: str, seconds: float
):
    trace = read(tmp_path, json_lines(*({"timestamp": t, "input_length": 5, "output_length": 5} for t in times)))
    assert trace.time_unit == unit
    assert trace.timestamps[-1] == seconds


def test_another_unit_can_be_given_but_not_for_dates(tmp_path: Path):
    trace = read(tmp_path, FORMATS["Mooncake"][0])
    assert {unit: trace.seconds_in(unit) for unit in traces.TIME_UNITS} == pytest.approx(
        {"s": 3053.0, "ms": 3.053, "us": 0.003053, "ns": 3.053e-6}
    )
    assert "2 requests in 3,053 s (timestamps in s)" in str(trace.describe("s"))
    with pytest.raises(ConfigError, match="has dates, which have no unit"):
        read(tmp_path, AZURE).seconds_in("ms")


# shared prefixes


@pytest.mark.parametrize(
    ("rows", "tokens"),
    [
        ([(6955, 14), (6472, 13), (1, 1)], 512),
        ([(521, 33), (30, 2)], 16),
        ([(200, 2)] * 3, 128),
        ([(100, 100)], 1),
        ([(300, 3), (299, 3)], 128),
        ([(250, 3), (200, 2)], 100),
        ([(5000, 1)], 8192),
        # nothing fits both
        ([(100, 10), (5000, 1)], 512),
    ],
)
def test_the_length_of_a_block_fits_the_lengths_of_all_rows(tmp_path: Path, rows: list[tuple[int, int]], tokens: int):
    lines = [{"input_length": n, "output_length": 1, "hash_ids": [*range(count)]} for n, count in rows]
    assert read(tmp_path, json_lines(*lines)).block_tokens == tokens


# conversations


def shared(*messages: tuple[str, str]) -> dict[str, object]:
    return {"id": "x", "conversations": [{"from": role, "value": text} for role, text in messages]}


@pytest.mark.parametrize(
    "conversation",
    [
        shared(("human", "a" * 40), ("gpt", "b" * 20), ("human", "c" * 8), ("gpt", "d" * 4)),
        {
            "messages": [
                {"role": "system", "content": "a" * 10},
                {"role": "user", "content": [{"type": "text", "text": "a" * 30}]},
                {"role": "assistant", "content": "b" * 20},
                {"role": "user", "content": "c" * 8},
                {"role": "assistant", "content": "d" * 4},
                {"role": "user", "content": "never answered"},
            ]
        },
        {"session_id": "s", "turns": [{"text": "a" * 40, "output_length": 5}, {"text": "c" * 8, "output_length": 1}]},
    ],
    ids=["ShareGPT", "messages", "AIPerf"],
)
def test_a_conversation_has_its_turns_each_with_all_before_it(tmp_path: Path, conversation: dict[str, object]):
    trace = read(tmp_path, json.dumps([conversation, conversation]))
    assert trace.conversations == (((10, 5), (2, 1)),) * 2
    assert trace.request_lengths == ((10, 5), (17, 1)) * 2
    assert "2 conversations of 4 requests; lengths estimated" in str(trace.describe())


def test_conversations_of_one_turn_are_requests_and_those_without_an_answer_are_skipped(tmp_path: Path):
    short = shared(("gpt", "a" * 8), ("human", "b" * 8), ("gpt", "c" * 4))
    trace = read(tmp_path, json.dumps([short, shared(("human", "hello")), short]))
    assert (trace.conversations, trace.request_lengths, trace.skipped_rows) == ((), ((4, 1), (4, 1)), 1)


def test_a_changed_file_is_read_again(tmp_path: Path):
    first = read(tmp_path, json_lines({"input_length": 5, "output_length": 5}))
    second = read(tmp_path, json_lines({"input_length": 6, "output_length": 50}))
    assert (first.request_lengths, second.request_lengths) == (((5, 5),), ((6, 50),))
