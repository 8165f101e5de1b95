"""Shapes of streams, contents and errors that gateways and other engines send."""

from __future__ import annotations

import json
from typing import Any

import pytest

from autotuner.load.stream import DecodedResponse, chat_text, decode
from tests.load.streams import DONE, delta, text, usage
from tests.servers import sse


def arriving(*reads: bytes, requested: int | None = None) -> DecodedResponse:
    """Decode bodies that arrive whole, read i at second i."""
    return decode([float(number) for number in range(len(reads))], list(reads), requested)


def thinking(shown: str) -> list[dict[str, Any]]:
    return [{"type": "thinking", "thinking": [{"type": "text", "text": shown}], "closed": True}]


# contents that are no text


@pytest.mark.parametrize(
    "content",
    [
        "word",
        ["word"],
        [{"type": "text", "text": "word"}],
        [{"type": "text", "text": {"value": "word", "annotations": []}}],
        [{"type": "output_text", "text": "wo", "annotations": []}, {"type": "text", "text": "rd"}],
        {"type": "text", "text": "word"},
    ],
)
def test_a_content_of_parts_is_text(content: Any):
    answer = arriving(sse(delta(content=content)), sse(delta("length", content=content)))
    assert (answer.error, list(answer.chunk_times), answer.first_output) == (None, [0, 1], 0)
    assert chat_text([0.0], [sse(delta(content=content))]) == "word"


@pytest.mark.parametrize(
    "reasoning",
    [
        {"content": thinking("hm")},
        {"content": [{"type": "reasoning", "text": "hm"}]},
        {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}]},
        {"content": "", "reasoning_details": [{"type": "reasoning.text", "text": "hm", "index": 0}]},
        {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"reasoning_content": [{"type": "text", "text": "hm"}]},
        {"thinking": "hm"},
    ],
)
def test_a_part_of_reasoning_is_a_token_and_no_output(reasoning: dict[str, Any]):
    answer = arriving(sse(delta(**reasoning)), sse(delta("length", content="yes")))
    assert (answer.error, list(answer.chunk_tokens), answer.first_output) == (None, [1, 1], 1)
    assert chat_text([0.0], [sse(delta(**reasoning))]) == ""


@pytest.mark.parametrize(
    "content", [[{"type": "thinking", "thinking": "", "signature": "c2lnbmF0dXJl"}], [], {}, [{"type": "image"}], [5]]
)
def test_a_part_without_text_is_no_token(content: Any):
    assert list(arriving(sse(delta(content=content)), sse(delta("length", content="yes"))).chunk_times) == [1]


@pytest.mark.parametrize(
    "call",
    [
        {"tool_calls": [{"index": 0, "function": {"name": "add", "arguments": {"a": 1}}}]},
        {"tool_calls": [{"index": 0, "function": {"name": None, "arguments": {"a": 1}}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": {"function": {"arguments": [1, 2]}}},
        {"tool_calls": [{"type": "custom", "custom": {"name": "add", "input": "1 2"}}]},
        {"function_call": {"name": "add", "arguments": ""}},
    ],
)
def test_a_call_of_a_tool_is_output_whatever_its_arguments_are(call: dict[str, Any]):
    answer = arriving(sse(delta(role="assistant", content=None)), sse(delta(**call)), sse(delta("tool_calls")))
    assert (answer.error, list(answer.chunk_times), answer.first_output) == (None, [1], 1)


@pytest.mark.parametrize("call", [{"tool_calls": []}, {"tool_calls": [{"index": 0, "function": {"arguments": {}}}]}])
def test_a_call_that_says_nothing_is_no_token(call: dict[str, Any]):
    assert list(arriving(sse(delta(**call)), sse(delta("length", content="a"))).chunk_times) == [1]


# one shape that is not understood


@pytest.mark.parametrize(
    "unknown",
    [
        sse(b"ping"),
        sse(b"[1]"),
        sse(b"{nonsense"),
        sse(b"\xff\xfe"),
        sse(b"[" * 100_000),
        sse({"choices": ["a"]}),
        sse({"choices": 7}),
        sse({"choices": [{"delta": 5}]}),
        sse({"choices": [{"delta": {"content": 5}}]}),
        sse({"choices": [{"text": 5}]}),
        sse({"choices": [{"delta": {"tool_calls": [5]}}]}),
        sse({"choices": [{"delta": {"content": "", "tool_calls": "x"}}]}),
        sse({"type": "status", "message": "queued"}),
        sse({"object": "metadata", "usage": 5}),
    ],
)
def test_one_unknown_shape_fails_no_answer_with_tokens(unknown: bytes):
    tail = sse({"choices": [], "usage": usage(5, 2)}, DONE)
    answer = arriving(sse(text("a")), unknown, sse(text("b", "length")), tail, requested=2)
    assert (answer.error, answer.output_tokens) == (None, 2)
    assert [answer.chunk_times[0], answer.chunk_times[-1]] == [0, 2]


def test_an_unreadable_character_costs_no_token():
    broken = sse(text("caf\\u00e9")).replace(b"\\\\u00e9", b"\xc3")
    assert list(arriving(broken, sse(text("b", "length"))).chunk_times) == [0, 1]


@pytest.mark.parametrize("shape", [b"data:", b"data: ", b": ping", b"event: ping\ndata:", b"data: null", b"data: {}"])
def test_a_heartbeat_is_no_token_and_no_error(shape: bytes):
    answer = arriving(shape + b"\n\n", sse(text("a")), shape + b"\n\n", sse(text("b", "length")), shape + b"\n\n")
    assert (answer.error, list(answer.chunk_times)) == (None, [1, 3])


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_a_line_separator_in_a_text_ends_no_event(separator: str):
    body = f'data: {{"choices": [{{"text": "a{separator}b", "finish_reason": null}}]}}\n\n'.encode()
    answer = arriving(body, sse(text("c", "length")))
    assert (answer.error, list(answer.chunk_times)) == (None, [0, 1])


# how events are separated


EVENTS = [text("a"), text("b"), text("c", "length"), {"choices": [], "usage": usage(5, 3)}]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r", "\n\n", "\r\n\r\n", "\r\r", "\n\r\n", "\n\n\n"])
@pytest.mark.parametrize("prefix", ["data: ", "data:", "event: message\ndata: ", ": ping\ndata: "])
@pytest.mark.parametrize("is_done", [True, False])
def test_events_end_as_the_server_ends_its_lines(ending: str, prefix: str, is_done: bool):
    line_end = ending[: len(ending) // 2] or ending
    lines = [*map(json.dumps, EVENTS), *(["[DONE]"] if is_done else [])]
    reads = [(prefix.replace("\n", line_end) + line + ending).encode() for line in lines]
    answer = arriving(*reads, requested=3)
    assert (answer.error, answer.output_tokens) == (None, 3)
    assert list(answer.chunk_times) == [0, 1, 2]


def test_json_documents_on_lines_are_events():
    reads = [json.dumps(event).encode() + b"\n" for event in EVENTS]
    assert list(arriving(*reads).chunk_times) == [0, 1, 2]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_document_alone_is_one_event_however_it_is_laid_out(indent: int | None):
    body = json.dumps({**text("a b c", "length"), "usage": usage(5, 3)}, indent=indent).encode()
    answer = arriving(body[:20], body[20:] + b"\n")
    assert (answer.error, list(answer.chunk_times), list(answer.chunk_tokens)) == (None, [1], [3])


# the end of a stream


@pytest.mark.parametrize("tail", [[{"choices": [], "usage": usage(5, 2)}, DONE], [DONE]])
def test_done_after_all_tokens_ends_an_answer_without_a_finish_reason(tail: list[Any]):
    answer = arriving(sse(text("a")), sse(text("b")), sse(*tail), requested=2)
    assert (answer.error, list(answer.chunk_times)) == (None, [0, 1])


@pytest.mark.parametrize("reason", ["length", {"type": "length", "length": 2}])
def test_a_finish_reason_may_be_an_object(reason: Any):
    last = text("b")
    last["choices"][0]["finish_reason"] = reason
    assert arriving(sse(text("a")), sse(last)).finish_reason == "length"


@pytest.mark.parametrize("tail", [[], [DONE], [{"choices": []}]])
def test_an_incomplete_answer_quotes_its_last_event(tail: list[Any]):
    answer = arriving(sse(text("a")), sse(text("the last word"), *tail), requested=5)
    assert answer.error == "incomplete"
    assert answer.error_message.startswith("No finish reason after: {")
    assert ("the last word" in answer.error_message) is (tail != [{"choices": []}])


def test_a_page_instead_of_a_stream_is_quoted():
    answer = arriving(b"<html>Sign in</html>")
    assert (answer.error, answer.error_message) == ("incomplete", "Not an event stream: <html>Sign in</html>")


def test_a_malformed_answer_quotes_its_first_bad_event():
    answer = arriving(sse(text("a")), sse(b"{first"), sse(b"{second"))
    assert (answer.error, answer.error_message) == ("malformed", "Not understood: {first")


# errors with status 200


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (b'event: error\ndata: {"code": 500, "details": "worker died"}\n\n', "worker died (code 500)"),
        (b"event: error\ndata: worker died\n\n", "worker died"),
        (b'event: error\ndata: {"error": {"message": "worker died"}}\n\n', "worker died"),
        (b'data: {"type": "error", "message": "worker died"}\n\n', "worker died"),
        (b'data: {"choices": [{"error": {"message": "worker died"}, "finish_reason": "error"}]}\n\n', "worker died"),
        (b'{"error": {"message": "worker died"}}\n', "worker died"),
        (b'data: {"code": 500, "message": "worker died"}\n\n', "worker died (code 500)"),
    ],
)
def test_an_error_in_the_stream_is_the_servers_own(event: bytes, message: str):
    answer = arriving(sse(text("a")), event)
    assert (answer.error, answer.error_message) == ("stream-error", message)
    assert list(answer.chunk_times) == [0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"code": 1302, "msg": "too many requests"}, "too many requests (code 1302)"),
        ({"code": "quota", "message": "too many requests"}, "too many requests (code quota)"),
        ({"status": 429, "detail": "too many requests"}, "too many requests (code 429)"),
        ({"success": False, "error_msg": "too many requests"}, "too many requests"),
        ({"error": "too many requests"}, "too many requests"),
        ([{"error": {"code": 429, "message": "too many requests"}}], "too many requests"),
    ],
)
def test_an_error_instead_of_a_stream_is_the_servers_own(body: Any, message: str):
    for form in (json.dumps(body).encode(), json.dumps(body, indent=1).encode(), sse(body)):
        answer = arriving(form)
        assert (answer.error, answer.error_message) == ("stream-error", message)


@pytest.mark.parametrize("status", [{"code": 200, "message": "ok"}, {"status": "queued", "message": "2nd in line"}])
def test_a_status_beside_an_answer_that_ends_well_is_no_error(status: dict[str, Any]):
    answer = arriving(sse(status), sse(text("a")), sse(text("b", "length")))
    assert (answer.error, list(answer.chunk_times)) == (None, [1, 2])
