"""Traffic scenarios: prompt and output lengths of requests, parsed from a short text such as `D(2000,200)`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from random import Random
from typing import Protocol

from autotuner import traces
from autotuner.errors import ConfigError, shorten_middle, unknown_name_message

SCENARIO_FORMS = (
    "D(in,out)",
    "N(mean_in,sd_in)/(mean_out,sd_out)",
    "U(min_in,max_in)/(min_out,max_out)",
    "U(max_in,max_out)",
    "P(prefix,in,out)",
    "C(turns,in,out)",
    "file:PATH",
)
MAX_TOKENS = 10_000_000
"""The longest context that a model of 2026 has; a longer prompt would only fill the memory of the load generator."""

_UNSUPPORTED_TASKS = {"E": "embeddings", "R": "reranking", "I": "images"}
_SCENARIO_PATTERN = re.compile(r"([A-Za-z])\((N(?:,N)*)\)(?:/\((N(?:,N)*)\))?".replace("N", "(?:0|[1-9][0-9]*)"))


class Scenario(Protocol):
    """A distribution of prompt and output lengths; `str(scenario)` is the text it was parsed from."""

    @property
    def prefix_tokens(self) -> int:
        """Number of leading prompt tokens that all requests share."""
        ...

    @property
    def mean_lengths(self) -> tuple[float, float]:
        """Mean (prompt tokens including the shared prefix, output tokens) of a request."""
        ...

    def sample_lengths(self, rng: Random) -> tuple[int, int]:
        """Draw (prompt tokens including the shared prefix, output tokens) of one request."""
        ...


@dataclass(frozen=True)
class FixedLengths:
    """`D(in,out)`, or `P(prefix,in,out)` with a shared prefix, which `prompt_tokens` does not include."""

    prompt_tokens: int
    output_tokens: int
    prefix_tokens: int = 0

    @property
    def mean_lengths(self) -> tuple[float, float]:
        return self.prefix_tokens + self.prompt_tokens, self.output_tokens

    def sample_lengths(self, rng: Random) -> tuple[int, int]:
        return self.prefix_tokens + self.prompt_tokens, self.output_tokens

    def __str__(self) -> str:
        own = f"{self.prompt_tokens},{self.output_tokens}"
        return f"P({self.prefix_tokens},{own})" if self.prefix_tokens else f"D({own})"


@dataclass(frozen=True)
class NormalLengths:
    """`N(mean_in,sd_in)/(mean_out,sd_out)`, clipped below at 1 prompt token and 2 output tokens."""

    prompt_mean_sd: tuple[int, int]
    output_mean_sd: tuple[int, int]
    prefix_tokens: int = 0

    @property
    def mean_lengths(self) -> tuple[float, float]:
        """The means of the unclipped normal distributions."""
        return self.prompt_mean_sd[0], self.output_mean_sd[0]

    def sample_lengths(self, rng: Random) -> tuple[int, int]:
        """Draw the two lengths independently."""
        return max(1, round(rng.gauss(*self.prompt_mean_sd))), max(2, round(rng.gauss(*self.output_mean_sd)))

    def __str__(self) -> str:
        return "N({},{})/({},{})".format(*self.prompt_mean_sd, *self.output_mean_sd)


@dataclass(frozen=True)
class UniformLengths:
    """`U(min_in,max_in)/(min_out,max_out)`, or `U(max_in,max_out)` from 1."""

    prompt_range: tuple[int, int]
    output_range: tuple[int, int]
    short_form: bool = False
    prefix_tokens: int = 0

    @property
    def mean_lengths(self) -> tuple[float, float]:
        """The midpoints of both ranges."""
        return sum(self.prompt_range) / 2, sum(self.output_range) / 2

    def sample_lengths(self, rng: Random) -> tuple[int, int]:
        """Draw the two lengths independently, bounds included."""
        return rng.randint(*self.prompt_range), rng.randint(*self.output_range)

    def __str__(self) -> str:
        if self.short_form:
            return f"U({self.prompt_range[1]},{self.output_range[1]})"
        return "U({},{})/({},{})".format(*self.prompt_range, *self.output_range)


class ConversationScenario(ABC):
    """A scenario of conversations: each turn's prompt is all earlier turns with their answers, then more tokens."""

    @property
    @abstractmethod
    def max_turns(self) -> int:
        """The turns of the longest conversation."""

    @abstractmethod
    def turns_of(self, conversation_index: int) -> Sequence[traces.Turn]:
        """(new prompt tokens, output tokens) of each turn of a conversation."""

    def turn_lengths(self, turn_index: int, conversation_index: int = 0) -> tuple[int, int]:
        """(prompt tokens, output tokens) of turn `turn_index`, counted from 0."""
        turns = self.turns_of(conversation_index)
        new_tokens, output_tokens = turns[turn_index]
        return sum(map(sum, turns[:turn_index])) + new_tokens, output_tokens


@dataclass(frozen=True)
class Conversation(ConversationScenario):
    """`C(turns,in,out)`: each turn's prompt is all earlier turns with their answers, then `prompt_tokens` more."""

    turns: int
    prompt_tokens: int
    output_tokens: int
    prefix_tokens: int = 0

    @property
    def max_turns(self) -> int:
        return self.turns

    def turns_of(self, conversation_index: int) -> Sequence[traces.Turn]:
        return ((self.prompt_tokens, self.output_tokens),) * self.turns

    @property
    def mean_lengths(self) -> tuple[float, float]:
        """Means over the turns."""
        return ((self.turns + 1) * self.prompt_tokens + (self.turns - 1) * self.output_tokens) / 2, self.output_tokens

    def sample_lengths(self, rng: Random) -> tuple[int, int]:
        """The lengths of a random turn."""
        return self.turn_lengths(rng.randrange(self.turns))

    def __str__(self) -> str:
        return f"C({self.turns},{self.prompt_tokens},{self.output_tokens})"


@dataclass(frozen=True)
class TraceReplay(traces.RecordedTrace):
    """`file:PATH`: lengths of the rows of a recorded trace, and the blocks that their prompts share."""

    prefix_tokens: int = 0

    @property
    def mean_lengths(self) -> tuple[float, float]:
        """Means over the rows."""
        prompts, outputs = zip(*self.request_lengths, strict=True)
        return sum(prompts) / len(prompts), sum(outputs) / len(outputs)

    def sample_lengths(self, rng: Random) -> tuple[int, int]:
        """The lengths of a random row."""
        return rng.choice(self.request_lengths)

    def __str__(self) -> str:
        return f"file:{self.path}"


@dataclass(frozen=True)
class ConversationReplay(TraceReplay, ConversationScenario):
    """`file:PATH` of conversations, one after the other and then again from the first."""

    @cached_property
    def max_turns(self) -> int:
        return max(map(len, self.conversations))

    def turns_of(self, conversation_index: int) -> Sequence[traces.Turn]:
        return self.conversations[conversation_index % len(self.conversations)]


def parse(text: str) -> Scenario:
    """Parse a scenario; ConfigError names the nearest form when it is invalid."""
    if text.startswith("file:"):
        return _trace_replay(text.removeprefix("file:"))
    match = _SCENARIO_PATTERN.fullmatch(text)
    if match is None:
        raise _syntax_error(text)
    letter = match[1]
    first = _lengths(match[2], text)
    second = _lengths(match[3], text) if match[3] else None
    if letter in _UNSUPPORTED_TASKS:
        raise ConfigError(
            f"Scenario '{text}' is for {_UNSUPPORTED_TASKS[letter]}.",
            why="Only text-to-text load is generated.",
            remedy="Use D, N, U, P, C or file:.",
        )
    scenario = _build_scenario(letter, first, second)
    if scenario is None:
        raise _syntax_error(text)
    return scenario


def _lengths(numbers: str, text: str) -> tuple[int, ...]:
    """The lengths of a scenario; ConfigError if one is longer than any model's context."""
    for number in numbers.split(","):
        if len(number) > len(str(MAX_TOKENS)) or int(number) > MAX_TOKENS:
            raise ConfigError(
                f"Scenario '{shorten_middle(text, 80)}' has a length above {MAX_TOKENS:,} tokens.",
                why="No model has such a context.",
                remedy="Lower it.",
            )
    return tuple(int(number) for number in numbers.split(","))


def _build_scenario(letter: str, first: tuple[int, ...], second: tuple[int, ...] | None) -> Scenario | None:
    match letter, first, second:
        case "D", (prompt, output), None:
            return _fixed(prompt, output, 0)
        case "P", (prefix, prompt, output), None:
            if not prefix:
                raise ConfigError(f"Scenario 'P(0,{prompt},{output})' shares no prefix; use 'D({prompt},{output})'.")
            return _fixed(prompt, output, prefix)
        case "C", (turns, prompt, output), None:
            conversation = Conversation(turns, prompt, output)
            if turns < 2 or not prompt or not output:
                raise ConfigError(f"Scenario '{conversation}' needs at least 2 turns, 1 prompt and 1 output token.")
            return conversation
        case "N", (mean_in, sd_in), (mean_out, sd_out):
            if not mean_in or not mean_out:
                raise ConfigError(f"Scenario 'N({mean_in},{sd_in})/({mean_out},{sd_out})' has a mean of 0 tokens.")
            return NormalLengths((mean_in, sd_in), (mean_out, sd_out))
        case "U", (max_in, max_out), None:
            return _uniform((1, max_in), (1, max_out), short=True)
        case "U", (min_in, max_in), (min_out, max_out):
            return _uniform((min_in, max_in), (min_out, max_out), short=False)
    return None


def _fixed(prompt: int, output: int, prefix: int) -> FixedLengths:
    scenario = FixedLengths(prompt, output, prefix)
    if not prompt or not output:
        raise ConfigError(f"Scenario '{scenario}' needs at least 1 prompt token and 1 output token.")
    return scenario


def _uniform(prompt: tuple[int, int], output: tuple[int, int], *, short: bool) -> UniformLengths:
    scenario = UniformLengths(prompt, output, short)
    for low, high in (prompt, output):
        if not 1 <= low <= high:
            raise ConfigError(f"Scenario '{scenario}' has the range {low} to {high}; a range needs 1 <= min <= max.")
    return scenario


def _syntax_error(text: str) -> ConfigError:
    unspaced = re.sub(r"\s+", "", text)
    for corrected in (unspaced, unspaced[:1].upper() + unspaced[1:]):
        match = _SCENARIO_PATTERN.fullmatch(corrected)
        if corrected != text and match is not None and match[1] in "DNUPC":
            why = "No spaces are allowed inside." if unspaced != text else ""
            return ConfigError(f"Unknown scenario '{text}'; did you mean '{corrected}'?", why=why)
    same_letter = [form for form in SCENARIO_FORMS if form[:1] == text[:1].upper()]
    if same_letter:
        return ConfigError(f"Unknown scenario '{text}'; did you mean '{same_letter[0]}'?")
    return ConfigError(unknown_name_message("scenario", text, SCENARIO_FORMS))


def _trace_replay(path: str) -> TraceReplay:
    trace = traces.read_trace(path)
    replay = ConversationReplay if trace.conversations else TraceReplay
    return replay(**{field.name: getattr(trace, field.name) for field in fields(trace)})
