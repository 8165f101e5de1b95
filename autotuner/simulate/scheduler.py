"""Continuous batching: which tokens each engine iteration computes, and when they are emitted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from autotuner.simulate.blocks import BlockPool, RequestBlocks

Policy = Literal["fcfs", "lpm"]
POLICIES: tuple[str, ...] = get_args(Policy)
MAX_PREFIX_SORT_QUEUE = 128
"""Longest waiting queue that is sorted by prefix match; SGLang falls back to FCFS above 128 too."""
WATERMARK_FRACTION = 0.01
"""Fraction of blocks kept free on admission, so that running requests can grow; vLLM's watermark is 0.01."""

StepTime = Callable[[Sequence[tuple[int, int]], int, int], float]
"""(prefill chunks as (new, cached) tokens, decoding sequences, their cached tokens in total) -> seconds."""


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """Limits of a batch and of the KV cache; `max_model_len` tokens must fit in `num_blocks` blocks."""

    max_running_requests: int
    max_batched_tokens: int
    max_model_len: int
    block_size: int
    num_blocks: int
    chunked_prefill: bool = True
    prefix_caching: bool = True
    policy: Policy = "fcfs"

    def __post_init__(self) -> None:
        if min(self.max_running_requests, self.max_batched_tokens, self.max_model_len, self.block_size) < 1:
            raise ValueError("every limit must be at least 1")
        if self.num_blocks * self.block_size < self.max_model_len:
            raise ValueError("one request of max_model_len tokens must fit in the KV cache")
        if not self.chunked_prefill and self.max_batched_tokens < self.max_model_len:
            raise ValueError("without chunked prefill a whole prompt of max_model_len must fit in one batch")


@dataclass(slots=True, eq=False)
class ScheduledRequest:
    """A request that generates exactly `output_tokens` unless it is aborted.

    `prompt_hashes` are the `block_hashes` of the prompt, empty if no other request shares its prefix. Of
    `received_tokens` at the start of the prompt the KV cache came from a prefill server; where that is all but
    the last, its first iteration here is a decode.
    The scheduler maintains the other fields; times are on the clock passed to `Scheduler.step`.
    """

    prompt_tokens: int
    output_tokens: int
    prompt_hashes: Sequence[Hashable] = ()
    arrival_time: float = 0.0
    received_tokens: int = 0
    generated_tokens: int = 0
    computed_tokens: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    first_scheduled_time: float | None = None
    first_token_time: float | None = None
    finish_time: float | None = None
    blocks: RequestBlocks = field(default_factory=RequestBlocks, repr=False)

    @property
    def total_tokens(self) -> int:
        """Prompt tokens and the output tokens generated so far."""
        return self.prompt_tokens + self.generated_tokens


@dataclass(frozen=True, slots=True)
class StepResult:
    """One iteration of `duration` seconds; each request in `emitted_tokens` gets that many tokens at its end."""

    duration: float
    emitted_tokens: list[tuple[ScheduledRequest, int]]
    finished_requests: list[ScheduledRequest]
    preempted_requests: list[ScheduledRequest]
    prefill_tokens: int
    decode_tokens: int


@dataclass(slots=True)
class EngineCounters:
    """Totals since the engine started."""

    prefix_query_tokens: int = 0
    prefix_hit_tokens: int = 0
    preemptions: int = 0
    prefill_tokens: int = 0
    generated_tokens: int = 0
    finished_requests: int = 0
    aborted_requests: int = 0
    steps: int = 0


class Scheduler:
    """Iteration-level scheduler with chunked or whole-prompt prefill and preemption by recomputation.

    With chunked prefill every running sequence decodes in every iteration, and prompt chunks fill the rest
    of `max_batched_tokens`. Without it an iteration is either all prefill or all decode, prefill first.
    """

    def __init__(self, limits: SchedulerLimits, step_time: StepTime) -> None:
        self.limits = limits
        self.counters = EngineCounters()
        self.block_pool = BlockPool(limits.num_blocks, prefix_caching=limits.prefix_caching)
        self.waiting: deque[ScheduledRequest] = deque()
        self.running: list[ScheduledRequest] = []
        self._step_time = step_time
        self._watermark_blocks = int(limits.num_blocks * WATERMARK_FRACTION)
        self._batch: list[tuple[ScheduledRequest, int]] = []
        self._preempted_requests: list[ScheduledRequest] = []

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self.running

    def add(self, request: ScheduledRequest) -> None:
        """Queue a request; ValueError if it can never be served."""
        if request.prompt_tokens < 1 or request.output_tokens < 1:
            raise ValueError("a request has at least one prompt and one output token")
        if request.prompt_tokens + request.output_tokens > self.limits.max_model_len:
            raise ValueError("prompt and output together exceed max_model_len")
        request.blocks.prompt_hashes = request.prompt_hashes
        self.waiting.append(request)

    def abort(self, request: ScheduledRequest) -> bool:
        """Drop a request and free its blocks; False if it was neither waiting nor running."""
        if request in self.running:
            self.running.remove(request)
        elif request in self.waiting:
            self.waiting.remove(request)
        else:
            return False
        self.block_pool.release(request.blocks)
        self.counters.aborted_requests += 1
        return True

    def step(self, now: float) -> StepResult | None:
        """Compute one iteration that starts at `now`; None when idle.

        The scheduler's state advances immediately; the caller delivers the tokens at `now + duration`.
        Requests added or aborted in between take effect in the next iteration.
        """
        self._batch, self._preempted_requests = [], []
        if self.limits.chunked_prefill:
            budget = self._schedule_running(self.limits.max_batched_tokens)
            if not self._preempted_requests:
                self._admit_waiting(budget)
        else:
            self._admit_waiting(self.limits.max_batched_tokens)
            if not self._batch:
                self._schedule_running(self.limits.max_batched_tokens)
        return self._run_batch(now) if self._batch else None

    def _schedule_running(self, budget: int) -> int:
        """Schedule running requests, oldest first; return the remaining token budget."""
        position = 0
        block_size = self.limits.block_size
        while position < len(self.running) and budget > 0:
            request = self.running[position]
            tokens = min(request.total_tokens - request.computed_tokens, budget)
            missing_blocks = -(-(request.computed_tokens + tokens) // block_size) - request.blocks.total
            if missing_blocks > 0 and not self._allocate_with_preemption(request, missing_blocks):
                break
            self._schedule(request, tokens)
            budget -= tokens
            position += 1
        return budget

    def _allocate_with_preemption(self, request: ScheduledRequest, missing_blocks: int) -> bool:
        """Allocate blocks to a running request, preempting the newest ones; False if it was preempted itself."""
        while not self.block_pool.allocate(request.blocks, missing_blocks):
            victim = self.running.pop()
            self.block_pool.release(victim.blocks)
            victim.computed_tokens = 0
            victim.received_tokens = 0  # computed anew here, as vLLM does
            victim.preemptions += 1
            self.waiting.appendleft(victim)
            self.counters.preemptions += 1
            self._preempted_requests.append(victim)
            if victim is request:
                return False
        return True

    def _admit_waiting(self, budget: int) -> None:
        """Start waiting requests while batch size, token budget and blocks allow; a blocked one blocks the rest."""
        limits = self.limits
        if limits.policy == "lpm" and len(self.running) < limits.max_running_requests:
            self._sort_by_prefix_match()
        while self.waiting and budget > 0 and len(self.running) < limits.max_running_requests:
            request = self.waiting[0]
            prefix_hits = self._prefix_hits(request)
            cached_tokens = prefix_hits * limits.block_size
            known_tokens = max(cached_tokens, request.received_tokens)
            tokens = request.total_tokens - known_tokens
            if tokens > budget:
                if not limits.chunked_prefill:
                    return
                tokens = budget
            new_blocks = -(-(known_tokens + tokens) // limits.block_size) - prefix_hits
            reserve = self._watermark_blocks if self.running else 0
            if not self.block_pool.admit(request.blocks, prefix_hits, new_blocks, reserve=reserve):
                return
            self.waiting.popleft()
            self.running.append(request)
            request.computed_tokens = known_tokens
            if not request.preemptions:
                request.cached_tokens = cached_tokens
                if limits.prefix_caching and not request.received_tokens:
                    self.counters.prefix_query_tokens += request.prompt_tokens
                    self.counters.prefix_hit_tokens += cached_tokens
            self._schedule(request, tokens)
            budget -= tokens

    def _schedule(self, request: ScheduledRequest, tokens: int) -> None:
        """Add tokens of a request to the batch, and publish the prompt blocks they fill, as real engines do."""
        self._batch.append((request, tokens))
        if request.computed_tokens < request.prompt_tokens:
            full_blocks = min(request.computed_tokens + tokens, request.prompt_tokens) // self.limits.block_size
            self.block_pool.publish(request.blocks, full_blocks)

    def _prefix_hits(self, request: ScheduledRequest) -> int:
        # The last token is always computed, because its output is the next token.
        max_hits = (request.total_tokens - 1) // self.limits.block_size
        return min(self.block_pool.count_prefix_hits(request.prompt_hashes), max_hits)

    def _sort_by_prefix_match(self) -> None:
        if 1 < len(self.waiting) <= MAX_PREFIX_SORT_QUEUE:
            by_priority = sorted(self.waiting, key=lambda item: (-item.preemptions, -self._prefix_hits(item)))
            self.waiting = deque(by_priority)

    def _run_batch(self, now: float) -> StepResult:
        """Compute the duration of the batch, advance its requests, and remove the finished ones."""
        chunks: list[tuple[int, int]] = []
        decodes = decode_context = 0
        emitted: list[tuple[ScheduledRequest, int]] = []
        for request, tokens in self._batch:
            if tokens == 1 and (request.generated_tokens or request.received_tokens):
                decodes += 1
                decode_context += request.computed_tokens
            else:
                chunks.append((tokens, request.computed_tokens))
            if request.computed_tokens + tokens == request.total_tokens:
                emitted.append((request, 1))
        duration = self._step_time(chunks, decodes, decode_context)
        for request, tokens in self._batch:
            request.computed_tokens += tokens
            if request.first_scheduled_time is None:
                request.first_scheduled_time = now
        finished = self._emit_tokens(emitted, now + duration)
        prefill_tokens = sum(tokens for tokens, _ in chunks)
        counters = self.counters
        counters.steps += 1
        counters.prefill_tokens += prefill_tokens
        counters.generated_tokens += len(emitted)
        counters.finished_requests += len(finished)
        return StepResult(duration, emitted, finished, self._preempted_requests, prefill_tokens, decodes)

    def _emit_tokens(self, emitted: list[tuple[ScheduledRequest, int]], end_time: float) -> list[ScheduledRequest]:
        """Record the emitted tokens, and free the blocks of finished requests, which are returned."""
        finished: list[ScheduledRequest] = []
        for request, tokens in emitted:
            request.generated_tokens += tokens
            if request.first_token_time is None:
                request.first_token_time = end_time
            if request.generated_tokens == request.output_tokens:
                request.finish_time = end_time
                self.block_pool.release(request.blocks)
                finished.append(request)
        if finished:
            finished_set = set(finished)
            self.running = [request for request in self.running if request not in finished_set]
        return finished
