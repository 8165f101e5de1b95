"""Response bytes with their arrival times -> chunks of tokens: SSE, JSON, and what counts as a token.

An event arrives when the read that brought its last byte does. A chunk carries a token when it
shows text of any channel, or when the server itself says so; a role-only or empty first chunk
never does.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heapify, heapreplace
from itertools import accumulate
from typing import Any

_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r){2}")
_REASONING_FIELDS = ("reasoning_content", "reasoning")
_CONTENT_FIELDS = ("content", "refusal")
_parse_json = json.JSONDecoder().decode
_MAX_MISSING_TOKENS = 1 << 20
"""No answer is longer than this many tokens: a larger count is not spread over its chunks."""


@dataclass(slots=True)
class DecodedResponse:
    """One response: when each token-bearing chunk arrived and how many tokens it carried.

    `error` is "malformed", "stream-error" (the server reported an error in the stream),
    "incomplete" (no finish reason) or None. `said` is the server's own error message.
    """

    chunk_times: array[float] = field(default_factory=lambda: array("d"))
    chunk_tokens: array[int] = field(default_factory=lambda: array("I"))
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    first_output: float | None = None
    finish_reason: str | None = None
    error: str | None = None
    error_message: str = ""


@dataclass(slots=True)
class _Event:
    """One event with choices: characters shown by channel, and the server's own counts where it gives them."""

    time: float
    output_chars: int = 0
    reasoning_chars: int = 0
    listed_tokens: int | None = None
    running_total: int | None = None
    role_only: bool = False

    @property
    def visible_chars(self) -> int:
        return self.output_chars + self.reasoning_chars


def decode(times: Sequence[float], pieces: Sequence[bytes]) -> DecodedResponse:
    """Decode a response body, whole or cut short, that arrived as `pieces` at `times`; never raises."""
    decoded = DecodedResponse()
    events: list[_Event] = []
    try:
        for time, payload in _payloads(times, pieces):
            if _read_event(_parse_json(payload.decode()), time, decoded, events):
                break
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        decoded.error = "malformed"
    _count_tokens(events, decoded)
    if decoded.error is None and decoded.finish_reason is None:
        decoded.error = "incomplete"
    return decoded


def chat_text(times: Sequence[float], pieces: Sequence[bytes]) -> str:
    """Return what a chat answered, without its reasoning, as far as it is readable."""
    said: list[str] = []
    with suppress(ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        for _, payload in _payloads(times, pieces):
            choices = _parse_json(payload.decode()).get("choices") or ()
            deltas = [choice.get("delta") or choice.get("message") or {} for choice in choices]
            said += [delta.get("content") or "" for delta in deltas]
    return "".join(said)


def _payloads(times: Sequence[float], pieces: Sequence[bytes]) -> Iterator[tuple[float, bytes]]:
    """Yield the data of each event up to [DONE], with the arrival time of its last byte."""
    body = b"".join(pieces)
    ends = list(accumulate(map(len, pieces)))
    if body.lstrip()[:1] == b"{":
        yield times[-1], body
        return
    read = begin = 0
    for end, stop in _event_spans(body):
        block = body[begin:end]
        begin = stop
        while ends[read] < stop:
            read += 1
        payload = _event_data(block)
        if payload == b"[DONE]":
            return
        if payload:
            yield times[read], payload


def _event_spans(body: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each event's text ends and where its blank line does; a last one may lack it."""
    stop = 0
    if b"\r" in body:
        for match in _BLANK_LINE.finditer(body):
            stop = match.end()
            yield match.start(), stop
    else:  # nearly every server: five times as fast
        while (end := body.find(b"\n\n", stop)) >= 0:
            stop = end + 2
            yield end, stop
    if stop < len(body):
        yield len(body), len(body)


def _event_data(block: bytes) -> bytes:
    if block.startswith(b"data:") and b"\n" not in block and b"\r" not in block:
        return block[5:].strip()
    lines = [line[5:].strip() for line in block.removeprefix(b"\xef\xbb\xbf").splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines)


def _read_event(data: dict[str, Any], time: float, decoded: DecodedResponse, events: list[_Event]) -> bool:
    """Take one event in; True when nothing after it counts."""
    if data.get("error") or data.get("object") == "error":
        decoded.error = "stream-error"
        decoded.error_message = error_message(data)
        return True
    usage = data.get("usage")
    if usage:
        decoded.prompt_tokens = _token_count(usage.get("prompt_tokens"), decoded.prompt_tokens)
        decoded.output_tokens = _token_count(usage.get("completion_tokens"), decoded.output_tokens)
        decoded.cached_tokens = _cached_tokens(usage.get("prompt_tokens_details"), decoded.cached_tokens)
    choices = data.get("choices")
    if choices:
        event = _Event(time)
        for choice in choices:
            _read_choice(choice, event)
            decoded.finish_reason = choice.get("finish_reason") or decoded.finish_reason
        if usage:
            event.running_total = _token_count(usage.get("completion_tokens"), None)
        events.append(event)
    return False


def _read_choice(choice: dict[str, Any], event: _Event) -> None:
    delta = choice.get("delta") or choice.get("message")
    if delta is None:
        event.output_chars += _char_count(choice.get("text"))
    else:
        event.output_chars += sum(_char_count(delta.get(name)) for name in _CONTENT_FIELDS)
        event.reasoning_chars += max(_char_count(delta.get(name)) for name in _REASONING_FIELDS)
        for call in delta.get("tool_calls") or ():
            function = call.get("function") or {}
            event.output_chars += _char_count(function.get("name")) + _char_count(function.get("arguments"))
        event.role_only = "role" in delta and not event.visible_chars
    named = _listed_tokens(choice)
    if named is not None:
        event.listed_tokens = (event.listed_tokens or 0) + named


def _listed_tokens(choice: dict[str, Any]) -> int | None:
    """Return how many tokens the server lists for a chunk, as ids or with their probabilities."""
    if choice.get("token_ids") is not None:
        return len(choice["token_ids"])
    probabilities = choice.get("logprobs") or {}
    tokens = probabilities.get("tokens") or probabilities.get("content")
    return None if tokens is None else len(tokens)


def _char_count(text: str | None) -> int:
    if text is None:
        return 0
    if not isinstance(text, str):
        raise TypeError("text is not a string")
    return len(text)


def _token_count(value: object, default: int | None) -> int | None:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise TypeError("a count is not a whole number")
    return value


def _cached_tokens(details: object, default: int | None) -> int | None:
    """Return how many prompt tokens were cached; an answer is no worse for details that cannot be read."""
    try:
        return _token_count(details.get("cached_tokens"), default) if isinstance(details, dict) else default
    except TypeError:
        return default


def error_message(data: object) -> str:
    """Return what a server's error object says, as vLLM, SGLang, OpenAI and FastAPI write it."""
    while isinstance(data, dict):
        data = data.get("error") or data.get("message") or data.get("detail") or json.dumps(data)
    return str(data)[:300]


def _count_tokens(events: list[_Event], decoded: DecodedResponse) -> None:
    """Say which events carry tokens and how many: the server's running counts, else token ids, else text."""
    if events and all(event.running_total is not None for event in events):
        totals = [event.running_total or 0 for event in events]
        tokens = [max(0, now - before) for before, now in zip([0, *totals], totals, strict=False)]
    elif any(event.listed_tokens for event in events) and all(
        event.listed_tokens or not event.visible_chars for event in events
    ):
        tokens = [event.listed_tokens or 0 for event in events]
    else:
        tokens = [1 if event.visible_chars else 0 for event in events]
        _distribute_missing(tokens, events, decoded.output_tokens or 0)
    plain = all(event.reasoning_chars == 0 for event in events)
    for event, number in zip(events, tokens, strict=True):
        if number:
            decoded.chunk_times.append(event.time)
            decoded.chunk_tokens.append(number)
            if decoded.first_output is None and (event.output_chars or plain):
                decoded.first_output = event.time


def _distribute_missing(tokens: list[int], events: list[_Event], total: int) -> None:
    """Place the tokens that the server counted and no text showed.

    A token may show no text (half a character, a special token): chunks without text after the
    first one with text carry one each, and those before it where the count comes out exactly so.
    What is left goes to the chunks with most text for their tokens, as a server joins tokens that
    its client was slow to take.
    """
    missing = total - sum(tokens)
    silent = sum(not number and not event.role_only for number, event in zip(tokens, events, strict=True))
    first = 0 if missing == silent else next((place for place, number in enumerate(tokens) if number), 0)
    for place in range(first, len(tokens)):
        if missing > 0 and tokens[place] == 0 and not events[place].role_only:
            tokens[place] = 1
            missing -= 1
    carriers = [place for place, number in enumerate(tokens) if number]
    if not carriers or not 0 < missing < _MAX_MISSING_TOKENS:
        return
    heap = [(-events[place].visible_chars / (tokens[place] + 1), -place) for place in carriers]
    heapify(heap)
    for _ in range(missing):
        place = -heap[0][1]
        tokens[place] += 1
        heapreplace(heap, (-events[place].visible_chars / (tokens[place] + 1), -place))
