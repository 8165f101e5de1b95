"""The requests of one phase of a load point: lengths from a seeded draw, bodies from the prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

from autotuner.workload.prompts import Prompts
from autotuner.workload.scenarios import Scenario, TraceReplay


@dataclass(slots=True)
class Request:
    """One request ready to be sent."""

    index: int
    prompt_tokens: int
    output_tokens: int
    body: bytes


def draw_lengths(scenario: Scenario, *, seed: int, phase: str, arrival: str = "") -> Iterator[tuple[int, int]]:
    """Draw (prompt tokens, output tokens) of one request after the other; equal seeds give equal lengths.

    Where the arrivals are those of a trace, its window has the trace's rows in their order and
    ends with them.
    """
    if arrival == "trace" and phase == "window" and isinstance(scenario, TraceReplay):
        yield from scenario.request_lengths
        return
    rng = Random(f"{seed} {scenario} {phase} lengths")
    while True:
        yield scenario.sample_lengths(rng)


class RequestStream:
    """The requests of one phase, without end unless a trace is replayed: of every `parts` the one at `part`."""

    def __init__(
        self,
        scenario: Scenario,
        prompts: Prompts,
        *,
        seed: int,
        phase: str,
        arrival: str = "",
        worker_index: int = 0,
        worker_count: int = 1,
    ) -> None:
        self.prompts = prompts
        drawn = draw_lengths(scenario, seed=seed, phase=phase, arrival=arrival)
        self.numbered_lengths = islice(enumerate(drawn), worker_index, None, worker_count)

    def __iter__(self) -> RequestStream:
        return self

    def __next__(self) -> Request:
        index, (prompt_tokens, output_tokens) = next(self.numbered_lengths)
        body = self.prompts.body(index, prompt_tokens, output_tokens)
        return Request(index, prompt_tokens, output_tokens, body)
