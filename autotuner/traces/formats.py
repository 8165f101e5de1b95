"""The formats of trace files, told apart by their columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from autotuner.traces.recorded import Turn
from autotuner.traces.time_units import TimeUnit

CHARACTERS_PER_TOKEN = 4
"""Estimate of a token's length in texts whose tokens nobody counted."""

_ASSISTANT_ROLES = frozenset({"assistant", "gpt", "chatgpt", "bing", "bard", "model"})
_TEXT_FIELDS = ("value", "content", "contents", "text", "texts")


class FieldError(ValueError):
    """A field of a row that is missing or cannot be what it says."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"Field '{field}' {problem}.")


@dataclass(frozen=True)
class RequestFormat:
    """A format with one request per row: the columns that hold its time, its prompt and its output.

    `has_texts` says that the prompt is a text rather than a number of tokens, `marker` is a further column that
    tells the format from others, and `time_unit` is None where the numbers themselves must tell.
    """

    name: str
    prompt: str
    output: str
    time: str = "timestamp"
    time_unit: TimeUnit | None = None
    has_texts: bool = False
    marker: str = ""

    def matches(self, columns: set[str]) -> bool:
        return {self.prompt, self.output, self.marker or self.prompt} <= columns

    def lengths(self, row: Mapping[str, Any]) -> tuple[int, int] | None:
        """(prompt tokens, output tokens); None for a row without tokens. FieldError names a bad field."""
        read_prompt = estimated_tokens if self.has_texts else token_count
        prompt, output = read_prompt(row, self.prompt), token_count(row, self.output)
        return (prompt, output) if prompt and output else None


@dataclass(frozen=True)
class ConversationFormat:
    """A format with a list of messages per row: alternating roles, or turns with their output lengths."""

    name: str
    messages: str

    def matches(self, columns: set[str]) -> bool:
        return self.messages in columns

    def turns(self, row: Mapping[str, Any]) -> tuple[Turn, ...]:
        """The turns of a conversation; none without a question and its answer. FieldError names a bad field."""
        messages = row.get(self.messages)
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise FieldError(self.messages, "is not a list of messages")
        return _turns_with_lengths(messages) if self.messages == "turns" else _alternating_turns(messages)


TraceFormat = RequestFormat | ConversationFormat

FORMATS: tuple[TraceFormat, ...] = (
    RequestFormat("BurstGPT CSV", "Request tokens", "Response tokens", time="Timestamp", time_unit="s"),
    RequestFormat("Azure LLM inference CSV", "ContextTokens", "GeneratedTokens", time="TIMESTAMP"),
    RequestFormat("Bailian JSON lines", "input_length", "output_length", time_unit="s", marker="chat_id"),
    RequestFormat("Mooncake JSON lines", "input_length", "output_length", time_unit="ms", marker="hash_ids"),
    RequestFormat("AIPerf JSON lines", "text_input", "output_length", time_unit="ms", has_texts=True),
    RequestFormat("AIPerf JSON lines", "messages", "output_length", time_unit="ms", has_texts=True),
    RequestFormat("AIPerf JSON lines", "text", "output_length", time_unit="ms", has_texts=True),
    RequestFormat("AIPerf JSON lines", "texts", "output_length", time_unit="ms", has_texts=True),
    RequestFormat("vLLM JSON lines", "prompt", "output_tokens", has_texts=True),
    RequestFormat("lengths", "input_length", "output_length"),
    RequestFormat("lengths", "prompt_length", "response_length"),
    RequestFormat("lengths", "prompt_len", "output_len"),
    RequestFormat("lengths", "input_tokens", "output_tokens"),
    RequestFormat("lengths", "prompt_tokens", "completion_tokens"),
    ConversationFormat("ShareGPT JSON", "conversations"),
    ConversationFormat("ShareGPT JSON", "messages"),
    ConversationFormat("AIPerf conversations", "turns"),
)
"""The first that matches is the format of a file."""


def find_format(columns: set[str]) -> TraceFormat | None:
    """The format of a file with these columns."""
    return next((trace_format for trace_format in FORMATS if trace_format.matches(columns)), None)


def token_count(row: Mapping[str, Any], field: str) -> int:
    """A number of tokens, 0 for none; FieldError if the field is missing or something else."""
    if field not in row:
        raise FieldError(field, "is missing")
    value = row[field]
    if value is None or (isinstance(value, str) and not value.strip()):
        return 0
    try:
        number = _any_number(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (number >= 0 and number.is_integer()):
        raise FieldError(field, f"is not a number of tokens: {value!r}")
    return int(number)


def estimated_tokens(row: Mapping[str, Any], field: str) -> int:
    """The tokens of the texts of a field, at least 1 if there are any characters."""
    if field not in row:
        raise FieldError(field, "is missing")
    return _estimate(_characters(row[field]))


def time_value(row: Mapping[str, Any], field: str) -> float | datetime | None:
    """A timestamp; None for a row without one. FieldError if it is neither a number nor a date."""
    value = row.get(field)
    if value is None or value == "":
        return None
    for read in (_whole_number, _any_number, datetime.fromisoformat):
        try:
            number = read(value)
        except (TypeError, ValueError):
            continue
        break
    else:
        raise FieldError(field, f"is neither a number nor a date: {value!r}")
    if isinstance(number, float) and not math.isfinite(number):
        raise FieldError(field, f"is not a finite number: {value!r}")
    return number


def _whole_number(value: object) -> int:
    if type(value) is int or (isinstance(value, str) and value.strip().isdecimal()):
        return int(value)
    raise ValueError(value)


def _any_number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError(value)
    return float(value)


def prefix_block_ids(row: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids of a row's prefix blocks; FieldError if they are not whole numbers."""
    ids = row.get("hash_ids")
    if ids is None:
        return ()
    if not isinstance(ids, list) or not all(type(block_id) is int for block_id in ids):
        raise FieldError("hash_ids", "is not a list of whole numbers")
    return tuple(ids)


def _alternating_turns(messages: Sequence[Mapping[str, Any]]) -> tuple[Turn, ...]:
    """An answer of the assistant ends a turn; what comes before it is its prompt."""
    turns: list[Turn] = []
    prompt_characters = 0
    for message in messages:
        characters = _characters(message)
        if prompt_characters and characters and str(message.get("from", message.get("role"))) in _ASSISTANT_ROLES:
            turns.append((_estimate(prompt_characters), _estimate(characters)))
            prompt_characters = 0
        else:
            prompt_characters += characters
    return tuple(turns)


def _turns_with_lengths(messages: Iterable[Mapping[str, Any]]) -> tuple[Turn, ...]:
    turns = ((_estimate(_characters(message)), token_count(message, "output_length")) for message in messages)
    return tuple((prompt, output) for prompt, output in turns if prompt and output)


def _characters(value: object) -> int:
    """The characters of a text, of a message's text, or of all texts of a list."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(_characters, value))
    if isinstance(value, dict):
        return next((_characters(value[field]) for field in _TEXT_FIELDS if field in value), 0)
    return 0


def _estimate(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)
