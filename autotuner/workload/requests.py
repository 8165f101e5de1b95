"""The requests of one phase of a load point: lengths from a seeded draw, bodies from the prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from autotuner.workload.prompts import Prompts
from autotuner.workload.scenarios import Scenario


@dataclass(slots=True)
class Request:
    """One request ready to be sent."""

    index: int
    prompt_tokens: int
    output_tokens: int
    body: bytes


def lengths(scenario: Scenario, *, seed: int, phase: str) -> Iterator[tuple[int, int]]:
    """Draw (prompt tokens, output tokens) of one request after the other; equal seeds give equal lengths."""
    rng = Random(f"{seed} {scenario} {phase} lengths")
    while True:
        yield scenario.lengths(rng)


class Requests:
    """An endless iterator of requests; equal seeds and scenarios give equal lengths."""

    def __init__(self, scenario: Scenario, prompts: Prompts, *, seed: int, phase: str) -> None:
        self.prompts = prompts
        self.lengths = lengths(scenario, seed=seed, phase=phase)
        self.index = 0

    def __iter__(self) -> Requests:
        return self

    def __next__(self) -> Request:
        index = self.index
        self.index += 1
        prompt_tokens, output_tokens = next(self.lengths)
        body = self.prompts.body(index, prompt_tokens, output_tokens)
        return Request(index, prompt_tokens, output_tokens, body)
