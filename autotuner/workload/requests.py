"""The requests of one phase of a load point: lengths from a seeded draw, bodies from the prompts."""

from __future__ import annotations

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


class Requests:
    """An endless iterator of requests; equal seeds and scenarios give equal lengths."""

    def __init__(self, scenario: Scenario, prompts: Prompts, *, seed: int, phase: str) -> None:
        self.scenario = scenario
        self.prompts = prompts
        self.rng = Random(f"{seed} {scenario} {phase} lengths")
        self.index = 0

    def __iter__(self) -> Requests:
        return self

    def __next__(self) -> Request:
        index = self.index
        self.index += 1
        prompt_tokens, output_tokens = self.scenario.lengths(self.rng)
        body = self.prompts.body(index, prompt_tokens, output_tokens)
        return Request(index, prompt_tokens, output_tokens, body)
