"""The scheduler for virtual time: what decodes moves on together, so an iteration costs the same for any batch.

Between two changes of the batch every decoding sequence gains one token in each iteration. Their
counts, blocks and token times are kept once for all of them and written back when a request leaves.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from autotuner.simulate.blocks import RequestBlocks
from autotuner.simulate.scheduler import ScheduledRequest, Scheduler, SchedulerLimits, StepTime

DecodeTime = Callable[[int], Callable[[int], float]]
"""(decoding sequences) -> (their cached tokens) -> seconds of an iteration without prompts."""


class FastScheduler(Scheduler):
    """The same iterations as `Scheduler`, many at a time.

    `run` replaces `step`. While a request decodes its own fields are those of when it began to;
    `settle` brings them up to date. `token_times` are the ends of the iterations that gave a
    request its tokens.
    """

    def __init__(self, limits: SchedulerLimits, step_time: StepTime, decode_time: DecodeTime) -> None:
        super().__init__(limits, step_time)
        self._decode_time = decode_time
        self._iteration_ends = array("d")
        self._decode_start: dict[ScheduledRequest, int] = {}
        self._token_times: dict[ScheduledRequest, array[float]] = {}
        self._partial_prefills: list[ScheduledRequest] = []
        self._finish_heap: list[tuple[int, int, ScheduledRequest]] = []
        self._tie_breaker = count()
        self._decode_context = 0
        self._block_crossings = [0] * limits.block_size
        self._decode_blocks = RequestBlocks()

    def add(self, request: ScheduledRequest) -> None:
        """Queue a request; see Scheduler."""
        super().add(request)
        self._token_times[request] = array("d")

    def abort(self, request: ScheduledRequest) -> bool:
        """Drop a request and free its blocks; see Scheduler."""
        self._stop_decoding(request)
        if request in self._partial_prefills:
            self._partial_prefills.remove(request)
        return super().abort(request)

    def token_times(self, request: ScheduledRequest) -> array[float]:
        """Take out when each token of a request came; once, after it has ended."""
        return self._token_times.pop(request)

    def run(self, now: float, until: float) -> tuple[float, list[ScheduledRequest]]:
        """Run iterations that start before `until`, up to the first that finishes a request.

        Returns the end of the last one and what it finished; `now` and nothing when idle.
        """
        while now < until:
            end, finished, steady = self._iterate(now)
            if end is None:
                return now, []
            now = end
            if finished:
                return now, finished
            if steady:
                now = self._repeat_decode(now, until)
        return now, []

    def _iterate(self, now: float) -> tuple[float | None, list[ScheduledRequest], bool]:
        """One iteration; its end, what it finished, and whether the next ones are like it."""
        self._batch, self._preempted_requests = [], []
        limits, decodes = self.limits, len(self._decode_start)
        if limits.chunked_prefill:
            budget = limits.max_batched_tokens - decodes
            if not self._schedule_all_running(budget):
                return self._step_individually(now)
            self._admit_waiting(budget - sum(tokens for _, tokens in self._batch))
        else:
            self._admit_waiting(limits.max_batched_tokens)
            if self._batch:
                decodes = 0
            elif not self._schedule_all_running(limits.max_batched_tokens - decodes):
                return self._step_individually(now)
        if not decodes and not self._batch:
            return None, [], False
        steady = bool(decodes) and not self._batch and not self._sorts_waiting()
        return *self._finish_iteration(now, decodes), steady

    def _sorts_waiting(self) -> bool:
        free = len(self.running) < self.limits.max_running_requests
        return self.limits.policy == "lpm" and free and len(self.waiting) > 1

    def _schedule_all_running(self, budget: int) -> bool:
        """Schedule what runs; False, and nothing done, when some of it must wait or be preempted."""
        if budget < 0 or (self._partial_prefills and not budget):
            return False
        size, needed = self.limits.block_size, self._block_crossings[len(self._iteration_ends) % self.limits.block_size]
        chunks: list[tuple[ScheduledRequest, int, int]] = []
        for request in self._partial_prefills:
            tokens = min(request.total_tokens - request.computed_tokens, budget)
            missing = max(0, -(-(request.computed_tokens + tokens) // size) - request.blocks.total)
            chunks.append((request, tokens, missing))
            needed += missing
        if len(chunks) > 1 or needed > self.block_pool.available_blocks:
            return False
        self.block_pool.allocate(self._decode_blocks, needed)
        for request, tokens, missing in chunks:
            self._decode_blocks.private_count -= missing
            request.blocks.private_count += missing
            self._schedule(request, tokens)
        return True

    def _finish_iteration(self, now: float, decodes: int) -> tuple[float, list[ScheduledRequest]]:
        """Let the iteration take its time, and move everything on."""
        chunks: list[tuple[int, int]] = []
        sequences, context = decodes, self._decode_context if decodes else 0
        for request, tokens in self._batch:
            if request.generated_tokens and tokens == 1:
                sequences += 1
                context += request.computed_tokens
            else:
                chunks.append((tokens, request.computed_tokens))
        end = now + self._step_time(chunks, sequences, context)
        finished = self._advance_decodes(end) if decodes else []
        emitted = decodes
        for request, tokens in self._batch:
            if request.first_scheduled_time is None:
                request.first_scheduled_time = now
            whole = request.computed_tokens + tokens == request.total_tokens
            request.computed_tokens += tokens
            if not whole:
                self._partial_prefills = [request]
                continue
            self._partial_prefills = [other for other in self._partial_prefills if other is not request]
            emitted += 1
            request.generated_tokens += 1
            self._token_times[request].append(end)
            if request.first_token_time is None:
                request.first_token_time = end
            if request.generated_tokens == request.output_tokens:
                self._finish_request(request, end)
                finished.append(request)
            else:
                self._start_decoding(request)
        counters = self.counters
        counters.steps += 1
        counters.prefill_tokens += sum(tokens for tokens, _ in chunks)
        counters.generated_tokens += emitted
        counters.finished_requests += len(finished)
        return end, finished

    def _advance_decodes(self, end: float) -> list[ScheduledRequest]:
        """Give every decoding sequence one token at `end`; return those that have all of theirs."""
        self._iteration_ends.append(end)
        self._decode_context += len(self._decode_start)
        finished: list[ScheduledRequest] = []
        heap, at = self._finish_heap, len(self._iteration_ends)
        while heap and heap[0][0] <= at:
            due, _, request = heappop(heap)
            # An entry of a request that left meanwhile is void.
            if self._decode_start.get(request) == due - (request.output_tokens - request.generated_tokens):
                self._stop_decoding(request)
                self._finish_request(request, end)
                finished.append(request)
        return finished

    def _repeat_decode(self, now: float, until: float) -> float:
        """Repeat an iteration that only decodes, up to `until`, a finish, or a lack of blocks."""
        seconds, decodes, ends = (
            self._decode_time(len(self._decode_start)),
            len(self._decode_start),
            self._iteration_ends,
        )
        crossing, size, common, grow = (
            self._block_crossings,
            self.limits.block_size,
            self._decode_blocks,
            self.block_pool.allocate,
        )
        context, at = self._decode_context, len(self._iteration_ends)
        first, last = at, self._finish_heap[0][0] - 1
        while now < until and at < last:
            needed = crossing[at % size]
            if needed and not grow(common, needed):
                break
            now += seconds(context)
            ends.append(now)
            context += decodes
            at += 1
        self._decode_context = context
        self.counters.steps += at - first
        self.counters.generated_tokens += (at - first) * decodes
        return now

    def _step_individually(self, now: float) -> tuple[float, list[ScheduledRequest], bool]:
        """One iteration request by request, for want of blocks or of budget."""
        for request in list(self._decode_start):
            self._stop_decoding(request)
        self._partial_prefills = []
        result = Scheduler.step(self, now)
        assert result is not None, "what runs is always scheduled, or preempted and then alone"
        end = now + result.duration
        for request, _ in result.emitted_tokens:
            self._token_times[request].append(end)
        for request in self.running:
            if request.generated_tokens and request.total_tokens - request.computed_tokens == 1:
                self._start_decoding(request)
            else:
                self._partial_prefills.append(request)
        return end, result.finished_requests, False

    def _start_decoding(self, request: ScheduledRequest) -> None:
        """Let a request with one token to compute decode with the others."""
        at, size = len(self._iteration_ends), self.limits.block_size
        self._decode_start[request] = at
        self._decode_context += request.computed_tokens
        # Its next block is needed in the iteration that computes the first token beyond its last one.
        beyond = request.blocks.total * size - request.computed_tokens
        self._block_crossings[(at + beyond) % size] += 1
        heappush(
            self._finish_heap, (at + request.output_tokens - request.generated_tokens, next(self._tie_breaker), request)
        )

    def _stop_decoding(self, request: ScheduledRequest) -> None:
        """Take a request out of what decodes, its own fields brought up to date."""
        joined = self._decode_start.pop(request, None)
        if joined is None:
            return
        at, size = len(self._iteration_ends), self.limits.block_size
        beyond = request.blocks.total * size - request.computed_tokens
        self._block_crossings[(joined + beyond) % size] -= 1
        gained = at - joined
        request.computed_tokens += gained
        request.generated_tokens += gained
        self._decode_context -= request.computed_tokens
        self._token_times[request].extend(self._iteration_ends[joined:])
        grown = -(-request.computed_tokens // size) - request.blocks.total
        if grown > 0:
            request.blocks.private_count += grown
            self._decode_blocks.private_count -= grown

    def _finish_request(self, request: ScheduledRequest, end: float) -> None:
        request.finish_time = end
        self.block_pool.release(request.blocks)
        self.running.remove(request)
