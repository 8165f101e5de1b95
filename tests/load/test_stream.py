"""Each numbered case is one way real servers stream; the bytes are as they send them."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.load.stream import DecodedResponse, decode
from tests.load.streams import DONE, delta, text, usage
from tests.servers import sse


def timed(body: bytes, *cuts: int) -> DecodedResponse:
    """Decode `body` cut at `cuts`; piece i arrives at second i."""
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(body)), len(body)]
    pieces = [body[begin:end] for begin, end in pairwise(edges) if end > begin]
    return decode([float(number) for number in range(len(pieces))], pieces)


def arriving(*reads: bytes) -> DecodedResponse:
    """Decode bodies that arrive whole, read i at second i."""
    return decode([float(number) for number in range(len(reads))], list(reads))


# 1. role-only or empty first chunk


def test_a_role_only_first_chunk_is_not_the_first_token():
    answer = arriving(
        sse(delta(role="assistant", content="")), sse(delta(content="Hi")), sse(delta("stop", content="!")), sse(DONE)
    )
    assert list(answer.chunk_times) == [1, 2]


def test_an_empty_first_chunk_is_not_the_first_token():
    answer = arriving(
        sse(text("")), sse(text("Hi")), sse(text("!", "length")), sse({"choices": [], "usage": usage(5, 2)})
    )
    assert list(answer.chunk_times) == [1, 2]
    assert list(answer.chunk_tokens) == [1, 1]


def test_a_role_chunk_that_carries_text_is_a_token():
    answer = arriving(sse(delta(role="assistant", content="Hi")), sse(delta("stop", content="!")))
    assert list(answer.chunk_times) == [0, 1]


def test_a_null_content_is_no_token():
    answer = arriving(sse(delta(role="assistant", content=None)), sse(delta("stop", content="Hi")))
    assert list(answer.chunk_times) == [1]


# 2. reasoning and content fields, both in one chunk


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_a_token_and_the_first_output_comes_after_it(field: str):
    answer = arriving(
        sse(delta(**{field: "hm"})), sse(delta(**{field: "so"}, content=None)), sse(delta("stop", content="4"))
    )
    assert list(answer.chunk_times) == [0, 1, 2]
    assert answer.first_output == 2


def test_reasoning_and_content_in_one_chunk_are_one_chunk_and_output():
    answer = arriving(
        sse(delta(reasoning="hm")), sse(delta(reasoning="so", content="4")), sse(delta("stop", content="2"))
    )
    assert list(answer.chunk_tokens) == [1, 1, 1]
    assert answer.first_output == 1


def test_the_same_reasoning_under_both_names_counts_once():
    event = delta(reasoning="so", reasoning_content="so")
    last = {**delta("stop", content="4444"), "usage": usage(1, 4)}
    assert list(arriving(sse(event), sse(last)).chunk_tokens) == [1, 3]


def test_reasoning_alone_has_no_first_output():
    assert arriving(sse(delta("length", reasoning="hm"))).first_output is None


def test_tool_call_arguments_are_tokens_and_output():
    call = [{"index": 0, "id": "c", "type": "function", "function": {"name": "add", "arguments": ""}}]
    more = [{"index": 0, "function": {"arguments": '{"a":'}}]
    empty = [{"index": 0, "function": {"arguments": ""}}]
    answer = arriving(
        sse(delta(reasoning="hm")),
        sse(delta(tool_calls=call)),
        sse(delta(tool_calls=more)),
        sse(delta("tool_calls", tool_calls=empty)),
    )
    assert list(answer.chunk_times) == [0, 1, 2]
    assert answer.first_output == 1


# 3. several tokens in a chunk


def test_tokens_that_were_joined_go_to_the_chunks_with_most_text():
    answer = arriving(
        sse(text("a")), sse(text(" longer text")), sse(text("b", "length")), sse({"choices": [], "usage": usage(1, 5)})
    )
    assert list(answer.chunk_tokens) == [1, 3, 1]


def test_running_usage_says_how_many_tokens_a_chunk_carries():
    events = [{**delta(role="assistant", content=""), "usage": usage(9, 0)}]
    events += [
        {**delta("length" if total == 6 else None, content="x"), "usage": usage(9, total)} for total in (1, 4, 6)
    ]
    answer = arriving(*(sse(event) for event in events), sse({"choices": [], "usage": usage(9, 6)}), sse(DONE))
    assert list(answer.chunk_tokens) == [1, 3, 2]
    assert list(answer.chunk_times) == [1, 2, 3]


def test_running_usage_shows_a_token_without_text():
    events = [
        {**text(shown, "length" if total == 3 else None), "usage": usage(9, total)}
        for total, shown in ((1, ""), (2, "é"), (3, ""))
    ]
    answer = arriving(*(sse(event) for event in events))
    assert list(answer.chunk_times) == [0, 1, 2]
    assert answer.first_output == 0


def test_token_ids_say_how_many_tokens_a_chunk_carries():
    answer = arriving(
        sse(text("a", token_ids=[5])), sse(text("", token_ids=[6, 7])), sse(text("c", "length", token_ids=[8]))
    )
    assert list(answer.chunk_tokens) == [1, 2, 1]


def test_a_chunk_without_text_after_the_first_is_a_token_where_the_count_says_so():
    """Half of a UTF-8 character, or a special token, shows nothing."""
    body = [
        sse(text("a")),
        sse(text("")),
        sse(text("é")),
        sse(text("", "length")),
        sse({"choices": [], "usage": usage(1, 4)}),
    ]
    answer = arriving(*body)
    assert list(answer.chunk_times) == [0, 1, 2, 3]


def test_empty_first_chunks_are_tokens_where_the_count_comes_out_exactly():
    """The first character takes three tokens, and is shown with the third."""
    body = [sse(text("")), sse(text("")), sse(text("é")), sse(text("!", "length"))]
    answer = arriving(*body, sse({"choices": [], "usage": usage(1, 4)}))
    assert list(answer.chunk_times) == [0, 1, 2, 3]
    assert list(answer.chunk_tokens) == [1, 1, 1, 1]
    assert answer.first_output == 0


def test_an_empty_first_chunk_beside_joined_tokens_stays_empty():
    body = [sse(text("")), sse(text("Hi there you")), sse(text("!", "length"))]
    answer = arriving(*body, sse({"choices": [], "usage": usage(1, 5)}))
    assert list(answer.chunk_times) == [1, 2]
    assert sum(answer.chunk_tokens) == 5


def test_probabilities_say_how_many_tokens_a_chunk_carries():
    completion = [
        sse(text("", logprobs={"tokens": ["\ufffd"], "token_logprobs": [-0.1]})),
        sse(text("é!", "length", logprobs={"tokens": ["é", "!"], "token_logprobs": [-0.1, -0.2]})),
    ]
    answer = arriving(*completion)
    assert (list(answer.chunk_times), list(answer.chunk_tokens)) == ([0, 1], [1, 2])
    listed = [{"token": "Hi"}, {"token": "!"}]
    first = delta(role="assistant", content="")
    last = delta("length", content="Hi!")
    last["choices"][0]["logprobs"] = {"content": listed}
    assert list(arriving(sse(first), sse(last)).chunk_tokens) == [2]


def test_a_finish_only_chunk_is_not_a_token():
    answer = arriving(
        sse(delta(content="a")), sse(delta(content="b")), sse(delta("stop")), sse({"choices": [], "usage": usage(1, 2)})
    )
    assert list(answer.chunk_times) == [0, 1]


def test_an_answer_that_shows_no_text_at_all_still_has_its_counted_tokens():
    answer = arriving(sse(text("")), sse(text("", "length")), sse({"choices": [], "usage": usage(1, 2)}))
    assert list(answer.chunk_times) == [0, 1]


@given(st.lists(st.text(max_size=8), min_size=1, max_size=20), st.integers(0, 60))
def test_chunks_carry_all_counted_tokens_and_at_least_one_each(shown: list[str], total: int):
    events = [text(piece, "length") for piece in shown]
    answer = decode([0.0], [sse(*events, {"choices": [], "usage": usage(1, total)})])
    carriers = sum(1 for piece in shown if piece)
    assert all(number >= 1 for number in answer.chunk_tokens)
    assert sum(answer.chunk_tokens) == max(total, carriers)


# 4. several events in a read, an event or a character split over reads, comments, CRLF

CHAT = sse(
    delta(role="assistant", content=""),
    delta(reasoning_content="héllo"),
    delta(content="日本"),
    delta(content="🙂"),
    delta("stop", content="."),
    {"choices": [], "usage": usage(12, 4)},
    DONE,
)
SPELLINGS = {
    "LF": CHAT,
    "CRLF": CHAT.replace(b"\n", b"\r\n"),
    "CR": CHAT.replace(b"\n", b"\r"),
    "unescaped": CHAT.replace(b"\\u65e5\\u672c", "日本".encode()).replace(b"\\ud83d\\ude42", "🙂".encode()),
    "no space": CHAT.replace(b"data: ", b"data:"),
    "comments": b": hello\n\n" + CHAT.replace(b"data: {", b": ping\n\nevent: message\nid: 7\ndata: {"),
    "byte order mark": b"\xef\xbb\xbf" + CHAT,
    "two data lines": CHAT.replace(b'"choices"', b'\ndata: "choices"'),
    "more empty lines": b"\n\n" + CHAT.replace(b"\n\n", b"\n\n\n\n"),
    "no last empty line": CHAT.removesuffix(b"\n\n"),
}


def untimed(answer: DecodedResponse) -> tuple[Any, ...]:
    plain = replace(answer, chunk_times=None, first_output=None)  # type: ignore[arg-type]
    return (plain, len(answer.chunk_times), answer.first_output is None)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_a_stream_reads_the_same(spelling: str):
    assert untimed(timed(SPELLINGS[spelling])) == untimed(timed(CHAT))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_stream_cut_at_any_one_place_reads_the_same(spelling: str):
    body = SPELLINGS[spelling]
    uncut = untimed(timed(body))
    for cut in range(1, len(body)):
        assert untimed(timed(body, cut)) == uncut


@given(st.sampled_from(sorted(SPELLINGS)), st.data())
def test_a_stream_cut_at_any_places_reads_the_same(spelling: str, data: st.DataObject):
    body = SPELLINGS[spelling]
    cuts = data.draw(st.lists(st.integers(1, len(body) - 1), max_size=40))
    assert untimed(timed(body, *cuts)) == untimed(timed(body))


def test_a_stream_read_byte_by_byte_reads_the_same():
    for body in SPELLINGS.values():
        assert untimed(timed(body, *range(len(body)))) == untimed(timed(body))


@given(st.data())
def test_an_event_arrives_with_the_read_that_brings_its_last_byte(data: st.DataObject):
    cuts = sorted(set(data.draw(st.lists(st.integers(1, len(CHAT) - 1), max_size=30))))
    ends = [index + 2 for index in range(len(CHAT)) if CHAT[index : index + 2] == b"\n\n"][1:5]
    expected = [sum(1 for cut in cuts if cut < end) for end in ends]
    assert list(timed(CHAT, *cuts).chunk_times) == expected


def test_several_events_in_one_read_are_several_chunks_at_one_time():
    answer = arriving(sse(text("a"), text("b")), sse(text("c", "length")))
    assert list(answer.chunk_times) == [0, 0, 1]


# 5. usage


def test_usage_in_a_last_chunk_without_choices_is_read():
    answer = arriving(sse(text("a")), sse(text("b", "length")), sse({"choices": [], "usage": usage(77, 2)}), sse(DONE))
    assert (answer.prompt_tokens, answer.output_tokens) == (77, 2)
    assert answer.error is None


def test_usage_inside_the_last_content_chunk_is_read_and_is_no_running_count():
    answer = arriving(sse(text("a")), sse(text("b")), sse({**text("c", "length"), "usage": usage(77, 3)}))
    assert (answer.prompt_tokens, answer.output_tokens) == (77, 3)
    assert list(answer.chunk_tokens) == [1, 1, 1]


@pytest.mark.parametrize(
    ("details", "cached"),
    [
        ({"cached_tokens": 48}, 48),
        ({"cached_tokens": 0}, 0),
        ({"cached_tokens": None}, None),
        ({}, None),
        (None, None),
        ("none", None),
        ({"cached_tokens": "48"}, None),
        ({"cached_tokens": -1}, None),
    ],
)
def test_how_much_of_the_prompt_was_cached_is_read_where_it_is_said_and_spoils_nothing(
    details: Any, cached: int | None
):
    reported = {**usage(5, 2), "prompt_tokens_details": details}
    answer = arriving(sse(text("a")), sse(text("b", "length")), sse({"choices": [], "usage": reported}))
    assert answer.cached_tokens == cached
    assert (answer.prompt_tokens, answer.output_tokens, answer.error) == (5, 2, None)


def test_without_usage_the_chunks_are_counted():
    answer = arriving(sse({**text("a"), "usage": None}), sse(text("b", "length")), sse(DONE))
    assert (answer.prompt_tokens, answer.output_tokens) == (None, None)
    assert sum(answer.chunk_tokens) == 2
    assert answer.error is None


# 6. an error object mid-stream, an end without finish_reason


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "out of pages", "code": 500}},
        {"object": "error", "message": "out of pages"},
        {"error": "out of pages"},
    ],
)
def test_an_error_object_in_the_stream_is_a_failure_with_the_tokens_before_it(error: dict[str, Any]):
    answer = arriving(sse(text("a")), sse(error), sse(DONE))
    assert answer.error == "stream-error"
    assert answer.error_message == "out of pages"
    assert list(answer.chunk_times) == [0]


def test_an_end_without_finish_reason_is_a_failure():
    assert arriving(sse(text("a")), sse(DONE)).error == "incomplete"
    assert arriving(sse(text("a"))).error == "incomplete"
    assert decode([], []).error == "incomplete"


def test_an_event_cut_short_is_malformed_with_the_tokens_before_it():
    answer = arriving(sse(text("a")), sse(text("b"))[:-20])
    assert answer.error == "malformed"
    assert list(answer.chunk_times) == [0]


# 7. is about a length that was asked for: see test_spool. 8. and 9. are about connections: see test_driver.
# 10. is about HTTP: see test_response, and here a body that is no stream


def test_an_answer_that_is_not_streamed_is_one_chunk():
    body = json.dumps(
        {
            "choices": [{"message": {"role": "assistant", "content": "all"}, "finish_reason": "length"}],
            "usage": usage(7, 3),
        }
    )
    answer = timed(body.encode(), 10, 20)
    assert list(answer.chunk_times) == [2]
    assert list(answer.chunk_tokens) == [3]
    assert answer.error is None


# 12. no [DONE]


def test_a_stream_without_done_is_whole_when_it_has_a_finish_reason():
    answer = arriving(sse(text("a")), sse(text("b", "length")))
    assert answer.error is None
    assert answer.finish_reason == "length"


def test_nothing_after_done_counts():
    assert list(arriving(sse(text("a", "stop")), sse(DONE), sse(text("b"))).chunk_times) == [0]


# garbage

_NAMES = "choices delta message text content usage completion_tokens tool_calls function token_ids error role"
NAMES = _NAMES.split()
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300)
@given(st.lists(values, max_size=4))
def test_any_json_gives_a_record_and_never_raises(events: list[Any]):
    answer = decode([0.0], [sse(*events)])
    assert len(answer.chunk_times) == len(answer.chunk_tokens)


@given(st.lists(st.tuples(st.floats(0, 9), st.binary(min_size=1, max_size=40)), max_size=6))
def test_any_bytes_give_a_record_and_never_raise(reads: list[tuple[float, bytes]]):
    decode([time for time, _ in reads], [piece for _, piece in reads])


@pytest.mark.parametrize(
    "body",
    [
        b"data: {nonsense\n\n",
        b"data: [1]\n\n",
        b'data: {"choices":[{"text":5}]}\n\n',
        b"data: \xff\xfe\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
    ],
)
def test_what_is_not_a_completion_is_malformed(body: bytes):
    assert decode([0.0], [body]).error == "malformed"


def test_a_count_beyond_belief_is_not_reported():
    answer = arriving(sse(text("a", "length")), sse({"choices": [], "usage": usage(1, 2_000_000_000)}))
    assert (answer.output_tokens, answer.token_counts) == (None, "events")
    assert list(answer.chunk_tokens) == [1]
