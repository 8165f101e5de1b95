"""Decodes a streamed response with arrival times into token counts per chunk: SSE, JSON, and what counts as a token.

An event arrives with the read that brought its last byte. A chunk carries a token when it has text
of any channel, or when the server's own counts say so; a role-only or empty first chunk does not.
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

from autotuner.endpoints.error_text import error_message

_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r){2}")
_REASONING_FIELDS = ("reasoning_content", "reasoning")
_CONTENT_FIELDS = ("content", "refusal")
_parse_json = json.JSONDecoder().decode
_MAX_MISSING_TOKENS = 1 << 20
"""A larger difference between the server's count and the chunks is an implausible count, and is not distributed."""


@dataclass(slots=True)
class DecodedResponse:
    """One response: when each token-bearing chunk arrived and how many tokens it carried.

    `error` is "malformed", "stream-error" (the server reported an error in the stream),
    "incomplete" (no finish reason) or None. `error_message` is the server's own.
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
    """One event with choices: characters per channel, and the server's own token counts where it gives them."""

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
    """Decode a response body, complete or cut short, that arrived as `pieces` at `times`; never raises."""
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
    """The content of a chat response, without its reasoning, as far as it can be decoded."""
    parts: list[str] = []
    with suppress(ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        for _, payload in _payloads(times, pieces):
            choices = _parse_json(payload.decode()).get("choices") or ()
            deltas = [choice.get("delta") or choice.get("message") or {} for choice in choices]
            parts += [delta.get("content") or "" for delta in deltas]
    return "".join(parts)


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
    """Yield the end of each event's text and of its blank line, which the last event may lack."""
    stop = 0
    if b"\r" in body:
        for match in _BLANK_LINE.finditer(body):
            stop = match.end()
            yield match.start(), stop
    else:  # five times as fast, and right for nearly every server
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
    """Add one event to `decoded` and `events`; True for an error event, after which nothing counts."""
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
    """Add one choice to its event: its characters of answer and reasoning, and its tokens if the server lists them."""
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
    listed = _listed_tokens(choice)
    if listed is not None:
        event.listed_tokens = (event.listed_tokens or 0) + listed


def _listed_tokens(choice: dict[str, Any]) -> int | None:
    """Number of tokens that the server lists for a chunk, as ids or log probabilities."""
    if choice.get("token_ids") is not None:
        return len(choice["token_ids"])
    logprobs = choice.get("logprobs") or {}
    tokens = logprobs.get("tokens") or logprobs.get("content")
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
    """Number of cached prompt tokens; unreadable details are ignored, as they do not spoil the response."""
    try:
        return _token_count(details.get("cached_tokens"), default) if isinstance(details, dict) else default
    except TypeError:
        return default


def _count_tokens(events: list[_Event], decoded: DecodedResponse) -> None:
    """Set the tokens of each chunk: by the server's running usage, else its listed tokens, else visible text."""
    if events and all(event.running_total is not None for event in events):
        totals = [event.running_total or 0 for event in events]
        tokens = [max(0, now - before) for before, now in zip([0, *totals], totals, strict=False)]
    elif _lists_all_tokens(events):
        tokens = [event.listed_tokens or 0 for event in events]
    else:
        tokens = [1 if event.visible_chars else 0 for event in events]
        _distribute_missing(tokens, events, decoded.output_tokens or 0)
    no_reasoning = all(event.reasoning_chars == 0 for event in events)
    for event, count in zip(events, tokens, strict=True):
        if count:
            decoded.chunk_times.append(event.time)
            decoded.chunk_tokens.append(count)
            if decoded.first_output is None and (event.output_chars or no_reasoning):
                decoded.first_output = event.time


def _lists_all_tokens(events: list[_Event]) -> bool:
    with_text = all(event.listed_tokens for event in events if event.visible_chars)
    return with_text and any(event.listed_tokens for event in events)


def _distribute_missing(tokens: list[int], events: list[_Event], total: int) -> None:
    """Add to `tokens` those in the server's count `total` that no chunk's text accounts for.

    A token may have no visible text (half a character, a special token): chunks without text after
    the first one with text get one each, and those before it if the count then comes out exactly.
    The rest goes to the chunks with most text per token, as servers merge tokens into one chunk when
    the client reads slowly.
    """
    missing = total - sum(tokens)
    textless = sum(not count and not event.role_only for count, event in zip(tokens, events, strict=True))
    first = 0 if missing == textless else next((index for index, count in enumerate(tokens) if count), 0)
    for index in range(first, len(tokens)):
        if missing > 0 and tokens[index] == 0 and not events[index].role_only:
            tokens[index] = 1
            missing -= 1
    carriers = [index for index, count in enumerate(tokens) if count]
    if not carriers or not 0 < missing < _MAX_MISSING_TOKENS:
        return
    heap = [(-events[index].visible_chars / (tokens[index] + 1), -index) for index in carriers]
    heapify(heap)
    for _ in range(missing):
        index = -heap[0][1]
        tokens[index] += 1
        heapreplace(heap, (-events[index].visible_chars / (tokens[index] + 1), -index))
