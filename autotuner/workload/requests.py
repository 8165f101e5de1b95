"""The requests of one phase of a load point: seeded random lengths, and bodies from `Prompts`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice, repeat
from random import Random
from typing import NamedTuple

from autotuner.workload.prompts import Prompts
from autotuner.workload.scenarios import Scenario, TraceReplay


@dataclass(slots=True)
class Request:
    """One request ready to be sent."""

    index: int
    prompt_tokens: int
    output_tokens: int
    body: bytes


class RequestShape(NamedTuple):
    """The lengths of a request, and the ids of the blocks that its prompt begins with: equal ids, equal tokens."""

    prompt_tokens: int
    output_tokens: int
    block_ids: tuple[int, ...] = ()


def draw_shapes(scenario: Scenario, *, seed: int, phase: str, arrival: str = "") -> Iterator[RequestShape]:
    """Yield the shapes of successive requests; equal seeds give equal shapes.

    The window of a replayed trace has the trace's rows in order and ends with them. Rows that share blocks come in
    order at any load, and a repetition shares none with the rows before it.
    """
    if isinstance(scenario, TraceReplay):
        rows = scenario.request_lengths
        if arrival == "trace" and phase == "window":
            yield from map(RequestShape._make, zip(*zip(*rows, strict=True), _block_ids(scenario), strict=True))
            return
        if scenario.block_ids:
            span = 1 + max(map(max, filter(None, scenario.block_ids)))
            for first_id in count(0, span):
                for (prompt, output), ids in zip(rows, scenario.block_ids, strict=True):
                    yield RequestShape(prompt, output, tuple(first_id + block_id for block_id in ids))
    rng = Random(f"{seed} {scenario} {phase} lengths")
    while True:
        yield RequestShape(*scenario.sample_lengths(rng))


def _block_ids(trace: TraceReplay) -> Iterable[tuple[int, ...]]:
    return trace.block_ids or repeat((), len(trace.request_lengths))


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
        all_shapes = draw_shapes(scenario, seed=seed, phase=phase, arrival=arrival)
        self.numbered_shapes = islice(enumerate(all_shapes), worker_index, None, worker_count)

    def __iter__(self) -> RequestStream:
        return self

    def __next__(self) -> Request:
        index, (prompt_tokens, output_tokens, block_ids) = next(self.numbered_shapes)
        body = self.prompts.body(index, prompt_tokens, output_tokens, block_ids)
        return Request(index, prompt_tokens, output_tokens, body)
