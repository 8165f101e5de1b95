"""The requests of one phase of a load point: lengths from a seeded draw, bodies from the prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

from autotuner.workload.prompts import Prompts
from autotuner.workload.scenarios import Scenario, Trace


@dataclass(slots=True)
class Request:
    """One request ready to be sent."""

    index: int
    prompt_tokens: int
    output_tokens: int
    body: bytes


def lengths(scenario: Scenario, *, seed: int, phase: str, arrival: str = "") -> Iterator[tuple[int, int]]:
    """Draw (prompt tokens, output tokens) of one request after the other; equal seeds give equal lengths.

    Where the arrivals are those of a trace, its window has the trace's rows in their order and
    ends with them.
    """
    if arrival == "trace" and phase == "window" and isinstance(scenario, Trace):
        yield from scenario.rows
        return
    rng = Random(f"{seed} {scenario} {phase} lengths")
    while True:
        yield scenario.lengths(rng)


class Requests:
    """The requests of one phase, without end unless a trace is replayed: of every `parts` the one at `part`."""

    def __init__(
        self,
        scenario: Scenario,
        prompts: Prompts,
        *,
        seed: int,
        phase: str,
        arrival: str = "",
        part: int = 0,
        parts: int = 1,
    ) -> None:
        self.prompts = prompts
        drawn = lengths(scenario, seed=seed, phase=phase, arrival=arrival)
        self.drawn = islice(enumerate(drawn), part, None, parts)

    def __iter__(self) -> Requests:
        return self

    def __next__(self) -> Request:
        index, (prompt_tokens, output_tokens) = next(self.drawn)
        body = self.prompts.body(index, prompt_tokens, output_tokens)
        return Request(index, prompt_tokens, output_tokens, body)
