"""Traffic scenarios: how many tokens a request carries, read from a short text such as `D(2000,200)`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import Protocol

from autotuner import traces
from autotuner.errors import ConfigError, unknown

FORMS = (
    "D(in,out)",
    "N(mean_in,sd_in)/(mean_out,sd_out)",
    "U(min_in,max_in)/(min_out,max_out)",
    "U(max_in,max_out)",
    "P(prefix,in,out)",
    "C(turns,in,out)",
    "file:PATH",
)
_OTHER_TASKS = {"E": "embeddings", "R": "reranking", "I": "images"}
_SHAPE = re.compile(r"([A-Za-z])\((N(?:,N)*)\)(?:/\((N(?:,N)*)\))?".replace("N", "(?:0|[1-9][0-9]*)"))


class Scenario(Protocol):
    """How long prompts and answers are; `str(scenario)` is the text it was read from.

    `prefix` is the number of leading prompt tokens that all requests share.
    """

    @property
    def prefix(self) -> int:
        """Leading prompt tokens that all requests share."""
        ...

    @property
    def mean(self) -> tuple[float, float]:
        """Mean (prompt tokens with the shared prefix, output tokens) of a request."""
        ...

    def lengths(self, rng: Random) -> tuple[int, int]:
        """Draw (prompt tokens with the shared prefix, output tokens) of one request."""
        ...


@dataclass(frozen=True)
class Fixed:
    """`D(in,out)`, and `P(prefix,in,out)` where a prefix is shared."""

    prompt: int
    output: int
    prefix: int = 0

    @property
    def mean(self) -> tuple[float, float]:
        """The lengths of every request."""
        return self.prefix + self.prompt, self.output

    def lengths(self, rng: Random) -> tuple[int, int]:
        """Answer the same lengths each time."""
        return self.prefix + self.prompt, self.output

    def __str__(self) -> str:
        return f"P({self.prefix},{self.prompt},{self.output})" if self.prefix else f"D({self.prompt},{self.output})"


@dataclass(frozen=True)
class Normal:
    """`N(mean_in,sd_in)/(mean_out,sd_out)`, cut at 1 prompt token and 2 output tokens."""

    prompt: tuple[int, int]
    output: tuple[int, int]
    prefix: int = 0

    @property
    def mean(self) -> tuple[float, float]:
        """Both means, before what the cut adds to them."""
        return self.prompt[0], self.output[0]

    def lengths(self, rng: Random) -> tuple[int, int]:
        """Draw both lengths independently."""
        return max(1, round(rng.gauss(*self.prompt))), max(2, round(rng.gauss(*self.output)))

    def __str__(self) -> str:
        return "N({},{})/({},{})".format(*self.prompt, *self.output)


@dataclass(frozen=True)
class Uniform:
    """`U(min_in,max_in)/(min_out,max_out)`, or `U(max_in,max_out)` from 1."""

    prompt: tuple[int, int]
    output: tuple[int, int]
    short: bool = False
    prefix: int = 0

    @property
    def mean(self) -> tuple[float, float]:
        """The middles of both ranges."""
        return sum(self.prompt) / 2, sum(self.output) / 2

    def lengths(self, rng: Random) -> tuple[int, int]:
        """Draw both lengths independently, the limits included."""
        return rng.randint(*self.prompt), rng.randint(*self.output)

    def __str__(self) -> str:
        if self.short:
            return f"U({self.prompt[1]},{self.output[1]})"
        return "U({},{})/({},{})".format(*self.prompt, *self.output)


@dataclass(frozen=True)
class Conversation:
    """`C(turns,in,out)`: each turn's prompt holds all turns before it with their answers, then `prompt` tokens more."""

    turns: int
    prompt: int
    output: int
    prefix: int = 0

    def turn(self, number: int) -> tuple[int, int]:
        """Return (prompt tokens, output tokens) of turn `number`, from 0."""
        return (number + 1) * self.prompt + number * self.output, self.output

    @property
    def mean(self) -> tuple[float, float]:
        """Means over the turns."""
        return ((self.turns + 1) * self.prompt + (self.turns - 1) * self.output) / 2, self.output

    def lengths(self, rng: Random) -> tuple[int, int]:
        """Draw one turn; all are equally frequent."""
        return self.turn(rng.randrange(self.turns))

    def __str__(self) -> str:
        return f"C({self.turns},{self.prompt},{self.output})"


@dataclass(frozen=True)
class Trace(traces.Recording):
    """`file:PATH`: lengths drawn from the rows of a recorded trace."""

    prefix: int = 0

    @property
    def mean(self) -> tuple[float, float]:
        """Means over the rows."""
        prompts, outputs = zip(*self.rows, strict=True)
        return sum(prompts) / len(prompts), sum(outputs) / len(outputs)

    def lengths(self, rng: Random) -> tuple[int, int]:
        """Draw one row."""
        return rng.choice(self.rows)

    def __str__(self) -> str:
        return f"file:{self.path}"


def parse(text: str) -> Scenario:
    """Read a scenario; ConfigError names the nearest form when the text is not one."""
    if text.startswith("file:"):
        return _trace(text.removeprefix("file:"))
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise _unreadable(text)
    letter = match[1]
    first = tuple(int(number) for number in match[2].split(","))
    second = tuple(int(number) for number in match[3].split(",")) if match[3] else None
    if letter in _OTHER_TASKS:
        raise ConfigError(
            f"Scenario '{text}' is for {_OTHER_TASKS[letter]}.",
            why="Only text-to-text load is generated.",
            remedy="Use D, N, U, P, C or file:.",
        )
    scenario = _scenario(letter, first, second)
    if scenario is None:
        raise _unreadable(text)
    return scenario


def _scenario(letter: str, first: tuple[int, ...], second: tuple[int, ...] | None) -> Scenario | None:
    match letter, first, second:
        case "D", (prompt, output), None:
            return _fixed(prompt, output, 0)
        case "P", (prefix, prompt, output), None:
            if not prefix:
                raise ConfigError(f"Scenario 'P(0,{prompt},{output})' shares no prefix; use 'D({prompt},{output})'.")
            return _fixed(prompt, output, prefix)
        case "C", (turns, prompt, output), None:
            talk = Conversation(turns, prompt, output)
            if turns < 2 or not prompt or not output:
                raise ConfigError(f"Scenario '{talk}' needs at least 2 turns, 1 prompt token and 1 output token.")
            return talk
        case "N", (mean_in, sd_in), (mean_out, sd_out):
            if not mean_in or not mean_out:
                raise ConfigError(f"Scenario 'N({mean_in},{sd_in})/({mean_out},{sd_out})' has a mean of 0 tokens.")
            return Normal((mean_in, sd_in), (mean_out, sd_out))
        case "U", (max_in, max_out), None:
            return _uniform((1, max_in), (1, max_out), short=True)
        case "U", (min_in, max_in), (min_out, max_out):
            return _uniform((min_in, max_in), (min_out, max_out), short=False)
    return None


def _fixed(prompt: int, output: int, prefix: int) -> Fixed:
    scenario = Fixed(prompt, output, prefix)
    if not prompt or not output:
        raise ConfigError(f"Scenario '{scenario}' needs at least 1 prompt token and 1 output token.")
    return scenario


def _uniform(prompt: tuple[int, int], output: tuple[int, int], *, short: bool) -> Uniform:
    scenario = Uniform(prompt, output, short)
    for low, high in (prompt, output):
        if not 1 <= low <= high:
            raise ConfigError(f"Scenario '{scenario}' has the range {low} to {high}; it must rise, from at least 1.")
    return scenario


def _unreadable(text: str) -> ConfigError:
    squeezed = re.sub(r"\s+", "", text)
    for repaired in (squeezed, squeezed[:1].upper() + squeezed[1:]):
        match = _SHAPE.fullmatch(repaired)
        if repaired != text and match is not None and match[1] in "DNUPC":
            why = "No spaces are allowed inside." if squeezed != text else ""
            return ConfigError(f"Unknown scenario '{text}'; did you mean '{repaired}'?", why=why)
    same_letter = [form for form in FORMS if form[:1] == text[:1].upper()]
    if same_letter:
        return ConfigError(f"Unknown scenario '{text}'; did you mean '{same_letter[0]}'?")
    return ConfigError(unknown("scenario", text, FORMS))


def _trace(path: str) -> Trace:
    found = traces.read(path)
    return Trace(found.path, found.rows, found.timestamps)
