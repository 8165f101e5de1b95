"""The scheduler for virtual time: what decodes moves on together, so an iteration costs the same for any batch.

Between two changes of the batch every decoding sequence gains one token in each iteration. Their
counts, blocks and token times are kept once for all of them and written back when a request leaves.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from autotuner.simulate.blocks import Holding
from autotuner.simulate.scheduler import Limits, Request, Scheduler, StepTime

Decoding = Callable[[int], Callable[[int], float]]
"""(decoding sequences) -> (their cached tokens) -> seconds of an iteration without prompts."""


class FastScheduler(Scheduler):
    """The same iterations as `Scheduler`, many at a time.

    `run` replaces `step`. While a request decodes its own fields are those of when it began to;
    `settle` brings them up to date. `token_times` are the ends of the iterations that gave a
    request its tokens.
    """

    def __init__(self, limits: Limits, step_time: StepTime, decoding: Decoding) -> None:
        super().__init__(limits, step_time)
        self._decode_time = decoding
        self._ends = array("d")
        self._joined: dict[Request, int] = {}
        self._times: dict[Request, array[float]] = {}
        self._partial: list[Request] = []
        self._finishing: list[tuple[int, int, Request]] = []
        self._order = count()
        self._context = 0
        self._crossing = [0] * limits.block_size
        self._common = Holding()

    def add(self, request: Request) -> None:
        """Queue a request; see Scheduler."""
        super().add(request)
        self._times[request] = array("d")

    def abort(self, request: Request) -> bool:
        """Drop a request and free its blocks; see Scheduler."""
        self._leave(request)
        if request in self._partial:
            self._partial.remove(request)
        return super().abort(request)

    def token_times(self, request: Request) -> array[float]:
        """Take out when each token of a request came; once, after it has ended."""
        return self._times.pop(request)

    def run(self, now: float, until: float) -> tuple[float, list[Request]]:
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
                now = self._leap(now, until)
        return now, []

    def _iterate(self, now: float) -> tuple[float | None, list[Request], bool]:
        """One iteration; its end, what it finished, and whether the next ones are like it."""
        self._batch, self._preempted = [], []
        limits, decodes = self.limits, len(self._joined)
        if limits.chunked_prefill:
            budget = limits.max_batched_tokens - decodes
            if not self._continue_all(budget):
                return self._slowly(now)
            self._admit(budget - sum(tokens for _, tokens in self._batch))
        else:
            self._admit(limits.max_batched_tokens)
            if self._batch:
                decodes = 0
            elif not self._continue_all(limits.max_batched_tokens - decodes):
                return self._slowly(now)
        if not decodes and not self._batch:
            return None, [], False
        steady = bool(decodes) and not self._batch and not self._would_sort()
        return *self._price(now, decodes), steady

    def _would_sort(self) -> bool:
        free = len(self.running) < self.limits.max_running_requests
        return self.limits.policy == "lpm" and free and len(self.waiting) > 1

    def _continue_all(self, budget: int) -> bool:
        """Schedule what runs; False, and nothing done, when some of it must wait or be preempted."""
        if budget < 0 or (self._partial and not budget):
            return False
        size, needed = self.limits.block_size, self._crossing[len(self._ends) % self.limits.block_size]
        chunks: list[tuple[Request, int, int]] = []
        for request in self._partial:
            tokens = min(request.tokens - request.computed, budget)
            missing = max(0, -(-(request.computed + tokens) // size) - request.holding.blocks)
            chunks.append((request, tokens, missing))
            needed += missing
        if len(chunks) > 1 or needed > self.pool.available:
            return False
        self.pool.grow(self._common, needed)
        for request, tokens, missing in chunks:
            self._common.own -= missing
            request.holding.own += missing
            self._schedule(request, tokens)
        return True

    def _price(self, now: float, decodes: int) -> tuple[float, list[Request]]:
        """Let the iteration take its time, and move everything on."""
        chunks: list[tuple[int, int]] = []
        sequences, context = decodes, self._context if decodes else 0
        for request, tokens in self._batch:
            if request.generated and tokens == 1:
                sequences += 1
                context += request.computed
            else:
                chunks.append((tokens, request.computed))
        end = now + self._step_time(chunks, sequences, context)
        finished = self._decoded(end) if decodes else []
        emitted = decodes
        for request, tokens in self._batch:
            if request.first_scheduled is None:
                request.first_scheduled = now
            whole = request.computed + tokens == request.tokens
            request.computed += tokens
            if not whole:
                self._partial = [request]
                continue
            self._partial = [other for other in self._partial if other is not request]
            emitted += 1
            request.generated += 1
            self._times[request].append(end)
            if request.first_token is None:
                request.first_token = end
            if request.generated == request.output_tokens:
                self._finish(request, end)
                finished.append(request)
            else:
                self._join(request)
        counters = self.counters
        counters.steps += 1
        counters.prefill_tokens += sum(tokens for tokens, _ in chunks)
        counters.generated_tokens += emitted
        counters.finished += len(finished)
        return end, finished

    def _decoded(self, end: float) -> list[Request]:
        """Give every decoding sequence one token at `end`; return those that have all of theirs."""
        self._ends.append(end)
        self._context += len(self._joined)
        finished: list[Request] = []
        heap, at = self._finishing, len(self._ends)
        while heap and heap[0][0] <= at:
            due, _, request = heappop(heap)
            # An entry of a request that left meanwhile is void.
            if self._joined.get(request) == due - (request.output_tokens - request.generated):
                self._leave(request)
                self._finish(request, end)
                finished.append(request)
        return finished

    def _leap(self, now: float, until: float) -> float:
        """Repeat an iteration that only decodes, up to `until`, a finish, or a lack of blocks."""
        seconds, decodes, ends = self._decode_time(len(self._joined)), len(self._joined), self._ends
        crossing, size, common, grow = self._crossing, self.limits.block_size, self._common, self.pool.grow
        context, at = self._context, len(self._ends)
        first, last = at, self._finishing[0][0] - 1
        while now < until and at < last:
            needed = crossing[at % size]
            if needed and not grow(common, needed):
                break
            now += seconds(context)
            ends.append(now)
            context += decodes
            at += 1
        self._context = context
        self.counters.steps += at - first
        self.counters.generated_tokens += (at - first) * decodes
        return now

    def _slowly(self, now: float) -> tuple[float, list[Request], bool]:
        """One iteration request by request, for want of blocks or of budget."""
        for request in list(self._joined):
            self._leave(request)
        self._partial = []
        result = Scheduler.step(self, now)
        assert result is not None, "what runs is always scheduled, or preempted and then alone"
        end = now + result.duration
        for request, _ in result.emitted:
            self._times[request].append(end)
        for request in self.running:
            if request.generated and request.tokens - request.computed == 1:
                self._join(request)
            else:
                self._partial.append(request)
        return end, result.finished, False

    def _join(self, request: Request) -> None:
        """Let a request with one token to compute decode with the others."""
        at, size = len(self._ends), self.limits.block_size
        self._joined[request] = at
        self._context += request.computed
        # Its next block is needed in the iteration that computes the first token beyond its last one.
        beyond = request.holding.blocks * size - request.computed
        self._crossing[(at + beyond) % size] += 1
        heappush(self._finishing, (at + request.output_tokens - request.generated, next(self._order), request))

    def _leave(self, request: Request) -> None:
        """Take a request out of what decodes, its own fields brought up to date."""
        joined = self._joined.pop(request, None)
        if joined is None:
            return
        at, size = len(self._ends), self.limits.block_size
        beyond = request.holding.blocks * size - request.computed
        self._crossing[(joined + beyond) % size] -= 1
        gained = at - joined
        request.computed += gained
        request.generated += gained
        self._context -= request.computed
        self._times[request].extend(self._ends[joined:])
        grown = -(-request.computed // size) - request.holding.blocks
        if grown > 0:
            request.holding.own += grown
            self._common.own -= grown

    def _finish(self, request: Request, end: float) -> None:
        request.finished = end
        self.pool.release(request.holding)
        self.running.remove(request)
