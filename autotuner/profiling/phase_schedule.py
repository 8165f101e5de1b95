"""What to measure next on one launched worker: its prefill and decode points, and the curves where it leads."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Protocol

from autotuner.profiling.grid import (
    DECODE_WINDOW_TOKENS,
    SHORTEST_CACHED_PROMPT,
    SHORTEST_PROMPT,
    batch_sizes,
    decode_shape,
    geometric_lengths,
    refined_batch_sizes,
    requests_that_fit,
)
from autotuner.profiling.mappings import ParallelMapping
from autotuner.profiling.points import (
    CacheFill,
    DecodeLoad,
    DecodePoint,
    PhaseLoad,
    PrefillLoad,
    PrefillPoint,
    ProfilePoint,
)
from autotuner.profiling.request import SlaRequest

PREFILL_REQUESTS, FURTHER_PREFILL_REQUESTS = 5, 6
"""Requests of one prompt length, and how many more where those spread; never fewer than three answers make a point."""
MAX_TTFT_SPREAD = 0.1
"""Width of the interval of the median TTFT, relative to it, from which on more requests are sent."""
RESERVED_TOKENS = 64
"""Tokens of the model's context that prefill prompts leave free for the answer and a chat template."""

Steps = Generator[PhaseLoad, ProfilePoint | None, None]


class Leader(Protocol):
    """Decides from the points so far whether a mapping's curves are worth measuring while it runs."""

    def leads_prefill(self, mapping: ParallelMapping) -> bool:
        """Whether no other mapping is measured or expected to be the better prefill worker."""

    def leads_decode(self, mapping: ParallelMapping) -> bool:
        """Whether no other mapping is measured or expected to be the better decode worker."""


@dataclass
class PhaseSchedule:
    """The points of one launch, in order; those in `points` are measured already and not asked for again.

    `kv_tokens` is the KV capacity of the worker, `running_limit` the most requests it is known to run at once,
    `max_context` the longest request in tokens. `begin` sets them, before the first `next_load`.
    """

    request: SlaRequest
    mapping: ParallelMapping
    points: dict[tuple[object, ...], ProfilePoint]
    leader: Leader
    record: Callable[[ProfilePoint], None]
    kv_tokens: int = 0
    running_limit: int | None = None
    max_context: int = 0
    next_load: PhaseLoad | None = None
    caches_nothing: bool = False
    remarks: list[str] = field(default_factory=list)
    _steps: Steps | None = None
    _filled: tuple[int, int] = (0, 0)

    def begin(self, kv_tokens: int, max_context: int, running_limit: int | None) -> None:
        """Start the schedule on a worker that is ready."""
        self.kv_tokens, self.max_context, self.running_limit = kv_tokens, max_context, running_limit
        self._steps = self._schedule()
        self.next_load = next(self._steps, None)

    def add(self, point: ProfilePoint | None) -> None:
        """Take the point of `next_load`, None of a cache fill, and go on to the next."""
        assert self._steps is not None
        if point is not None:
            self.points[point.key] = point
        try:
            self.next_load = self._steps.send(point)
        except StopIteration:
            self.next_load = None

    def stop(self) -> None:
        """End the schedule with the points measured so far."""
        if self._steps is not None:
            self._steps.close()
        self.next_load = None

    def _schedule(self) -> Steps:
        request = self.request
        yield from self._prefill(request.isl)
        yield from self._decode_row(*decode_shape(request.context_length, min(request.osl, DECODE_WINDOW_TOKENS)))
        if self.leader.leads_prefill(self.mapping):
            yield from self._prefill_curve()
        if self.leader.leads_decode(self.mapping):
            yield from self._decode_surface()

    def _prefill_curve(self) -> Steps:
        longest = self.max_context - RESERVED_TOKENS
        for length in geometric_lengths(SHORTEST_PROMPT, longest, self.request.prefill_points, self.request.isl):
            yield from self._prefill(length)

    def _decode_surface(self) -> Steps:
        request = self.request
        longest = min(self.max_context, self.kv_tokens) - DECODE_WINDOW_TOKENS
        shortest = min(SHORTEST_CACHED_PROMPT + DECODE_WINDOW_TOKENS // 2, longest)
        for context in geometric_lengths(shortest, longest, request.decode_points, request.context_length):
            if self.caches_nothing:
                return
            most_output = request.osl if context == request.context_length else DECODE_WINDOW_TOKENS
            yield from self._decode_row(*decode_shape(context, min(most_output, DECODE_WINDOW_TOKENS)))

    def _prefill(self, prompt_tokens: int) -> Steps:
        if ("prefill", prompt_tokens) in self.points:
            return
        concurrency = self.mapping.attention_dp
        point = yield PrefillLoad(prompt_tokens, PREFILL_REQUESTS * concurrency, concurrency)
        assert isinstance(point, PrefillPoint)
        if point.rejection is None and point.source != "predicted" and _spreads(point):
            point = yield PrefillLoad(prompt_tokens, FURTHER_PREFILL_REQUESTS * concurrency, concurrency)
            assert isinstance(point, PrefillPoint)
        self.record(point)

    def _decode_row(self, prompt_tokens: int, output_tokens: int) -> Steps:
        """Decode points of one context, from the most requests that fit down to one, and where ITL bends."""
        row: list[DecodePoint] = []
        step = self.mapping.attention_dp
        sizes = self._sizes(prompt_tokens, output_tokens)
        while sizes:
            point = yield from self._decode(DecodeLoad(prompt_tokens, output_tokens, sizes.pop(0)))
            if self.caches_nothing or (point.lacks_cache and not point.cached_share):
                return
            if point.is_saturated and (self.running_limit is None or point.running < self.running_limit):
                self.running_limit = point.running
                self.remarks.append(f"{self.mapping.label} runs {point.running} requests at once")
                sizes = self._sizes(prompt_tokens, output_tokens)
            row.append(point)
        for size in refined_batch_sizes(row, self.request.itl, step):
            yield from self._decode(DecodeLoad(prompt_tokens, output_tokens, size))

    def _sizes(self, prompt_tokens: int, output_tokens: int) -> list[int]:
        step = self.mapping.attention_dp
        most = requests_that_fit(self.kv_tokens, prompt_tokens, output_tokens, self.running_limit)
        return batch_sizes(most, self.request.decode_points, step)

    def _decode(self, load: DecodeLoad) -> Generator[PhaseLoad, ProfilePoint | None, DecodePoint]:
        """One decode point on cached prompts; the cache is filled first, and once more if the prompts had left it."""
        point = self.points.get(("decode", load.prompt_tokens, load.concurrency))
        attempts = 0
        while point is None or (attempts == 1 and isinstance(point, DecodePoint) and point.lacks_cache):
            attempts += 1
            filled_length, filled_requests = self._filled
            if filled_length != load.prompt_tokens or filled_requests < load.concurrency or attempts > 1:
                yield CacheFill(load.prompt_tokens, load.concurrency)
                self._filled = load.prompt_tokens, load.concurrency
            point = yield load
        assert isinstance(point, DecodePoint)
        if attempts:
            self.record(point)
        if point.lacks_cache:
            self._filled = 0, 0
            self.caches_nothing = not point.cached_share and not self._has_cached_points()
        return point

    def _has_cached_points(self) -> bool:
        return any(isinstance(point, DecodePoint) and point.cached_share for point in self.points.values())


def _spreads(point: PrefillPoint) -> bool:
    return point.interval[1] - point.interval[0] > MAX_TTFT_SPREAD * point.ttft
