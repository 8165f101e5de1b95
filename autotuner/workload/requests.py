"""The requests of one phase of a load point: seeded random lengths, and bodies from `Prompts`."""

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
    """Yield (prompt tokens, output tokens) of successive requests; equal seeds give equal lengths.

    The window of a replayed trace has the trace's rows in order and ends with them.
    """
    if arrival == "trace" and phase == "window" and isinstance(scenario, TraceReplay):
        yield from scenario.request_lengths
        return
    rng = Random(f"{seed} {scenario} {phase} lengths")
    while True:
        yield scenario.sample_lengths(rng)


class RequestStream:
    """One worker's requests of one phase, every `worker_count`-th; endless unless a trace is replayed."""

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
        all_lengths = draw_lengths(scenario, seed=seed, phase=phase, arrival=arrival)
        self.numbered_lengths = islice(enumerate(all_lengths), worker_index, None, worker_count)

    def __iter__(self) -> RequestStream:
        return self

    def __next__(self) -> Request:
        index, (prompt_tokens, output_tokens) = next(self.numbered_lengths)
        body = self.prompts.body(index, prompt_tokens, output_tokens)
        return Request(index, prompt_tokens, output_tokens, body)
