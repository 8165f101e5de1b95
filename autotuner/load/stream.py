"""Decodes a streamed response with arrival times into token counts per chunk: JSON, and what counts as a token.

A chunk carries a token when it has text of any channel, or when the server's own counts say so; a
role-only or empty first chunk does not. What is not understood is skipped: it fails a response only
if that does not end as it should.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from autotuner.endpoints.error_text import error_message
from autotuner.load.event_stream import DONE, split_events
from autotuner.load.token_counts import TokenCounts, TokenEvent, Usage, count_tokens, read_usage

_REASONING_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
_OUTPUT_FIELDS = ("refusal", "audio")
_TEXT_KEYS = ("text", "content", "value", "output_text", "refusal", "transcript", "summary", *_REASONING_FIELDS)
"""Where the parts of a content hold text; other keys are names, numbers and signatures."""
_ERROR_CODE_KEYS = ("code", "status", "status_code", "error_code")
_ERROR_TEXT_KEYS = ("message", "msg", "detail", "details", "error_msg", "error_message")
_HEARTBEATS = ("null", '""', "{}", "[]")
_MAX_HEARTBEAT_LENGTH = 5
_MAX_QUOTED_BYTES = 4096
_SHAPE_ERRORS = (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError)
_parse_json = json.JSONDecoder().decode


@dataclass(slots=True)
class DecodedResponse:
    """One response: when each token-bearing chunk arrived and how many tokens it carried.

    `output_tokens` is the server's count where it is believed. `error` is "malformed" (an event was
    not understood), "stream-error" (the server reported an error in the stream), "incomplete" (no finish
    reason) or None. `error_message` is the server's own, or quotes the event; it may repeat secrets.
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
    token_counts: TokenCounts = "events"


class _StreamReader:
    """What the events of one response said so far."""

    def __init__(self) -> None:
        self.events: list[TokenEvent] = []
        self.usages: list[Usage] = []
        self.finish_reason: str | None = None
        self.is_done = False
        self.error_text: str | None = None
        self.possible_error_text: str | None = None
        self.first_bad_data: bytes | None = None
        self.last_data: bytes | None = None

    def read(self, time: float, data: bytes, name: bytes) -> None:
        """Read one event; `error_text` is set by an error event, after which nothing counts."""
        self.last_data = data
        try:
            text = data.decode("utf-8", "replace")
            if name == b"error":
                self.error_text = _reported_error(text)
                return
            if len(text) < _MAX_HEARTBEAT_LENGTH and text in _HEARTBEATS:
                return
            parsed = _parse_json(text)
            for document in _as_list(parsed):
                if not self._read_document(time, document):
                    self._note_bad(data)
        except _SHAPE_ERRORS:
            self._note_bad(data)

    def _note_bad(self, data: bytes) -> None:
        if self.first_bad_data is None:
            self.first_bad_data = data

    def _read_document(self, time: float, document: Any) -> bool:
        """Read one JSON document of an event; False when something in it is not understood."""
        if not isinstance(document, dict):
            return False
        if document.get("error") or document.get("object") == "error" or document.get("type") == "error":
            self.error_text = _error_words(document)
            return True
        choices = _as_list(document.get("choices") or [])
        usage = _find_usage(document, choices)
        if usage is not None:
            self.usages.append(usage)
        if not choices:
            self._read_possible_error(document)
            return True
        event = TokenEvent(time)
        if usage is not None:
            event.running_total = usage.output_tokens(0)
        understood = True
        for choice in choices:
            understood &= self._read_choice(choice, event)
        event.role_only &= not self.events
        self.events.append(event)
        return understood

    def _read_choice(self, choice: Any, event: TokenEvent) -> bool:
        """Add one choice to its event: its characters of answer and reasoning, and its tokens if they are listed."""
        if not isinstance(choice, dict):
            return False
        if choice.get("error"):
            self.error_text = _error_words(choice)
            return True
        reason = choice.get("finish_reason")
        if reason:
            self.finish_reason = str(reason.get("type") if isinstance(reason, dict) else reason)
            event.is_last = True
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict):
            understood = _read_delta(delta, event)
        else:
            understood = _add_chars(choice.get("text") if delta is None else delta, event)
        if choice.get("token_ids") is not None or choice.get("logprobs"):
            listed = _listed_tokens(choice)
            if listed is not None:
                event.listed_tokens = (event.listed_tokens or 0) + listed
        return understood

    def _read_possible_error(self, document: Mapping[str, Any]) -> None:
        """Keep the words of a document with a code and a message, which is an error if the response fails."""
        codes = [document[key] for key in _ERROR_CODE_KEYS if document.get(key)]
        if document.get("success") is False or (codes and any(document.get(key) for key in _ERROR_TEXT_KEYS)):
            self.possible_error_text = self.possible_error_text or _error_words(document)


def decode(times: Sequence[float], pieces: Sequence[bytes], requested_output: int | None = None) -> DecodedResponse:
    """Decode a response body, complete or cut short, that arrived as `pieces` at `times`; never raises.

    `requested_output` is the number of tokens asked for, by which the server's counts are judged.
    """
    reader = _StreamReader()
    for time, data, name in split_events(times, pieces):
        if data == DONE:
            reader.is_done = True
            break
        reader.read(time, data, name)
        if reader.error_text is not None:
            break
    decoded = DecodedResponse(finish_reason=reader.finish_reason)
    for usage in reader.usages:
        decoded.prompt_tokens = _or_before(usage.prompt, decoded.prompt_tokens)
        decoded.cached_tokens = _or_before(usage.cached, decoded.cached_tokens)
    _count_tokens(reader, decoded, requested_output)
    _find_error(reader, decoded, requested_output, b"".join(pieces[:4]))
    return decoded


def chat_text(times: Sequence[float], pieces: Sequence[bytes]) -> str:
    """The content of a chat response, without its reasoning, as far as it can be decoded."""
    parts: list[str] = []
    for _, data, _ in split_events(times, pieces):
        if data == DONE:
            break
        with suppress(*_SHAPE_ERRORS):
            choices = _parse_json(data.decode("utf-8", "replace")).get("choices") or ()
            deltas = [choice.get("delta") or choice.get("message") or {} for choice in choices]
            contents = [delta.get("content") for delta in deltas]
            parts += [text for content in contents for text, is_reasoning in _texts(content) if not is_reasoning]
    return "".join(parts)


def _count_tokens(reader: _StreamReader, decoded: DecodedResponse, requested_output: int | None) -> None:
    events = reader.events
    counted = count_tokens(
        events, reader.usages, requested_output, reached_limit=(reader.finish_reason or "").lower() == "length"
    )
    decoded.output_tokens, decoded.token_counts = counted.total, counted.source
    no_reasoning = all(event.reasoning_chars == 0 for event in events)
    for event, count in zip(events, counted.tokens, strict=True):
        if count:
            decoded.chunk_times.append(event.time)
            decoded.chunk_tokens.append(count)
            if decoded.first_output is None and (event.output_chars or no_reasoning):
                decoded.first_output = event.time


def _find_error(
    reader: _StreamReader, decoded: DecodedResponse, requested_output: int | None, body_start: bytes
) -> None:
    """Set the error of a response that the server reported, or that did not end as it should."""
    if reader.error_text is not None or decoded.finish_reason == "error":
        decoded.error, decoded.error_message = "stream-error", reader.error_text or ""
        return
    received_all = requested_output is not None and sum(decoded.chunk_tokens) >= requested_output
    ended = decoded.finish_reason is not None or (reader.is_done and (decoded.output_tokens or received_all))
    if ended and (decoded.chunk_times or reader.first_bad_data is None):
        if reader.first_bad_data is not None:
            decoded.error_message = f"Not understood: {_quote(reader.first_bad_data)}"
        return
    if reader.possible_error_text is not None:
        decoded.error, decoded.error_message = "stream-error", reader.possible_error_text
    elif reader.first_bad_data is not None:
        decoded.error, decoded.error_message = "malformed", f"Not understood: {_quote(reader.first_bad_data)}"
    else:
        decoded.error = "incomplete"
        if reader.last_data is not None:
            decoded.error_message = f"No finish reason after: {_quote(reader.last_data)}"
        elif body_start.strip():
            decoded.error_message = f"Not an event stream: {_quote(body_start)}"


def _quote(data: bytes) -> str:
    return data[:_MAX_QUOTED_BYTES].decode("utf-8", "replace")


def _reported_error(text: str) -> str:
    """The words of an error event, whose data may be JSON or plain text."""
    try:
        return _error_words(_parse_json(text))
    except (ValueError, RecursionError):
        return text[:_MAX_QUOTED_BYTES]


def _error_words(document: object) -> str:
    """The message of an error object, also under the keys of servers that have one without an error object."""
    if isinstance(document, dict) and not document.get("error"):
        texts = [document[key] for key in _ERROR_TEXT_KEYS if isinstance(document.get(key), str) and document[key]]
        codes = [str(document[key]) for key in _ERROR_CODE_KEYS if isinstance(document.get(key), int | str)]
        if texts:
            return f"{texts[0]} (code {codes[0]})" if codes else texts[0]
    return error_message(document)


def _or_before(value: int | None, before: int | None) -> int | None:
    return before if value is None else value


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _find_usage(document: Mapping[str, Any], choices: list[Any]) -> Usage | None:
    """The usage of an event, which some servers put into a choice or into an object of their own."""
    reported = document.get("usage")
    if not reported and isinstance(document.get("x_groq"), dict):
        reported = document["x_groq"].get("usage")
    elif not reported and choices and isinstance(choices[0], dict):
        reported = choices[0].get("usage")
    return read_usage(reported) if reported else None


def _read_delta(delta: Mapping[str, Any], event: TokenEvent) -> bool:
    """Add the characters of a delta or message; False when a text in it is not understood."""
    content = delta.get("content")
    understood = _add_chars(content, event)
    if len(delta) > ("content" in delta) + ("role" in delta):
        understood &= _read_other_fields(delta, event)
    event.role_only = "role" in delta and not event.visible_chars
    return understood


def _read_other_fields(delta: Mapping[str, Any], event: TokenEvent) -> bool:
    """Add the characters of a delta outside its content: reasoning, a refusal, calls of tools."""
    understood = True
    for name in _OUTPUT_FIELDS:
        understood &= _add_chars(delta.get(name), event)
    # the same reasoning may come under several names
    event.reasoning_chars += max([_char_count(delta.get(name)) for name in _REASONING_FIELDS if name in delta] or [0])
    for call in _as_list(delta.get("tool_calls") or []):
        event.output_chars += _call_chars(call)
    if delta.get("function_call"):
        event.output_chars += _call_chars(delta["function_call"])
    return understood


def _add_chars(content: Any, event: TokenEvent) -> bool:
    """Add a text or a list of parts, of which some may be reasoning; False when it is neither."""
    if isinstance(content, str):
        event.output_chars += len(content)
        return True
    if content is None:
        return True
    for text, is_reasoning in _texts(content):
        if is_reasoning:
            event.reasoning_chars += len(text)
        else:
            event.output_chars += len(text)
    return isinstance(content, list | dict)


def _char_count(content: Any) -> int:
    return len(content) if isinstance(content, str) else sum(len(text) for text, _ in _texts(content))


def _texts(content: Any, *, is_reasoning: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield each text in a content, which may be a list of typed parts, and whether it is reasoning."""
    if isinstance(content, str):
        yield content, is_reasoning
    elif isinstance(content, list):
        for part in content:
            yield from _texts(part, is_reasoning=is_reasoning)
    elif isinstance(content, dict):
        kind = str(content.get("type"))
        is_reasoning = is_reasoning or "think" in kind or "reason" in kind
        for key in _TEXT_KEYS:
            if key in content:
                yield from _texts(content[key], is_reasoning=is_reasoning or key in _REASONING_FIELDS)


def _call_chars(call: Any) -> int:
    """Characters of a tool call's name and arguments, which may be an object instead of its text."""
    function = call.get("function") or call.get("custom") or call
    arguments = function.get("arguments") or function.get("input") or ""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return len(function.get("name") or "") + len(text)


def _listed_tokens(choice: Mapping[str, Any]) -> int | None:
    """Number of tokens that the server lists for a chunk, as ids or log probabilities."""
    token_ids = choice.get("token_ids")
    if isinstance(token_ids, list):
        return len(token_ids)
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return None
    tokens = logprobs.get("tokens") or logprobs.get("content")
    return len(tokens) if isinstance(tokens, list) else None
