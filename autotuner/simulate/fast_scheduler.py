"""The scheduler for virtual time, which advances all decoding requests together.

Between two changes of the batch every decoding request gains one token per iteration. Their token counts,
blocks and token times are therefore kept once for all of them, and written back to a request when it stops
decoding, so that the cost of an iteration does not grow with the batch.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from autotuner.simulate.blocks import RequestBlocks
from autotuner.simulate.scheduler import ScheduledRequest, Scheduler, SchedulerLimits, StepTime

DecodeTime = Callable[[int], Callable[[int], float]]
"""(decoding sequences) -> (their cached tokens in total) -> seconds of an iteration without prefill."""


class FastScheduler(Scheduler):
    """Computes the same iterations as `Scheduler`, many at a time: `run` replaces `step`.

    While a request decodes, its own fields keep their values from when it started to;
    `_stop_decoding` brings them up to date.
    """

    def __init__(self, limits: SchedulerLimits, step_time: StepTime, decode_time: DecodeTime) -> None:
        super().__init__(limits, step_time)
        self._decode_time = decode_time
        self._iteration_ends = array("d")
        # Decoding requests by the index of their first decode iteration in `_iteration_ends`.
        self._decode_start: dict[ScheduledRequest, int] = {}
        self._token_times: dict[ScheduledRequest, array[float]] = {}
        self._partial_prefills: list[ScheduledRequest] = []
        # (number of iterations after which it finishes, tie-breaker, request)
        self._finish_heap: list[tuple[int, int, ScheduledRequest]] = []
        self._tie_breaker = count()
        # Cached tokens of the decoding requests in total, as of the latest iteration.
        self._decode_context = 0
        # How many decoding requests need a new block in iteration i, at index i % block_size.
        self._block_crossings = [0] * limits.block_size
        # Blocks allocated while decoding, not yet written back to their requests.
        self._decode_blocks = RequestBlocks()

    def add(self, request: ScheduledRequest) -> None:
        super().add(request)
        self._token_times[request] = array("d")

    def abort(self, request: ScheduledRequest) -> bool:
        self._stop_decoding(request)
        if request in self._partial_prefills:
            self._partial_prefills.remove(request)
        return super().abort(request)

    def token_times(self, request: ScheduledRequest) -> array[float]:
        """Return and forget when each token of a finished or aborted request was emitted."""
        return self._token_times.pop(request)

    def run(self, now: float, until: float) -> tuple[float, list[ScheduledRequest]]:
        """Run iterations that start before `until`, up to the first one that finishes a request.

        Returns the end of the last iteration and the requests it finished; `now` and none when idle.
        """
        while now < until:
            end, finished, is_steady = self._iterate(now)
            if end is None:
                return now, []
            now = end
            if finished:
                return now, finished
            if is_steady:
                now = self._repeat_decode(now, until)
        return now, []

    def _iterate(self, now: float) -> tuple[float | None, list[ScheduledRequest], bool]:
        """Run one iteration; return its end, the finished requests, and whether the next ones only decode too."""
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
        is_steady = bool(decodes) and not self._batch and not self._sorts_waiting()
        return *self._finish_iteration(now, decodes), is_steady

    def _sorts_waiting(self) -> bool:
        has_free_slot = len(self.running) < self.limits.max_running_requests
        return self.limits.policy == "lpm" and has_free_slot and len(self.waiting) > 1

    def _schedule_all_running(self, budget: int) -> bool:
        """Schedule all running requests; False, and nothing changes, if one must wait or be preempted."""
        if budget < 0 or (self._partial_prefills and not budget):
            return False
        block_size = self.limits.block_size
        needed_blocks = self._block_crossings[len(self._iteration_ends) % block_size]
        chunks: list[tuple[ScheduledRequest, int, int]] = []
        for request in self._partial_prefills:
            tokens = min(request.total_tokens - request.computed_tokens, budget)
            missing_blocks = max(0, -(-(request.computed_tokens + tokens) // block_size) - request.blocks.total)
            chunks.append((request, tokens, missing_blocks))
            needed_blocks += missing_blocks
        if len(chunks) > 1 or needed_blocks > self.block_pool.available_blocks:
            return False
        self.block_pool.allocate(self._decode_blocks, needed_blocks)
        for request, tokens, missing_blocks in chunks:
            self._decode_blocks.private_count -= missing_blocks
            request.blocks.private_count += missing_blocks
            self._schedule(request, tokens)
        return True

    def _finish_iteration(self, now: float, decodes: int) -> tuple[float, list[ScheduledRequest]]:
        """Compute the iteration's duration and advance all requests; return its end and the finished requests."""
        chunks: list[tuple[int, int]] = []
        sequences, decode_context = decodes, self._decode_context if decodes else 0
        for request, tokens in self._batch:
            if tokens == 1 and (request.generated_tokens or request.received_tokens):
                sequences += 1
                decode_context += request.computed_tokens
            else:
                chunks.append((tokens, request.computed_tokens))
        end = now + self._step_time(chunks, sequences, decode_context)
        finished = self._advance_decodes(end) if decodes else []
        emitted_tokens = decodes
        for request, tokens in self._batch:
            if request.first_scheduled_time is None:
                request.first_scheduled_time = now
            is_complete = request.computed_tokens + tokens == request.total_tokens
            request.computed_tokens += tokens
            if not is_complete:
                self._partial_prefills = [request]
                continue
            self._partial_prefills = [other for other in self._partial_prefills if other is not request]
            emitted_tokens += 1
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
        counters.generated_tokens += emitted_tokens
        counters.finished_requests += len(finished)
        return end, finished

    def _advance_decodes(self, end: float) -> list[ScheduledRequest]:
        """Give every decoding request one token at `end`; return those that finish."""
        self._iteration_ends.append(end)
        self._decode_context += len(self._decode_start)
        finished: list[ScheduledRequest] = []
        heap, iteration = self._finish_heap, len(self._iteration_ends)
        while heap and heap[0][0] <= iteration:
            finish_iteration, _, request = heappop(heap)
            # The entry is stale if the request has stopped decoding meanwhile.
            start_iteration = finish_iteration - (request.output_tokens - request.generated_tokens)
            if self._decode_start.get(request) == start_iteration:
                self._stop_decoding(request)
                self._finish_request(request, end)
                finished.append(request)
        return finished

    def _repeat_decode(self, now: float, until: float) -> float:
        """Repeat decode-only iterations until `until`, until a request finishes, or until blocks run out."""
        decodes, decode_context, ends = len(self._decode_start), self._decode_context, self._iteration_ends
        # Attributes are bound to locals because this is the innermost loop of the simulation.
        seconds, allocate = self._decode_time(decodes), self.block_pool.allocate
        block_crossings, block_size, decode_blocks = self._block_crossings, self.limits.block_size, self._decode_blocks
        first, last = len(ends), self._finish_heap[0][0] - 1
        iteration = first
        while now < until and iteration < last:
            needed_blocks = block_crossings[iteration % block_size]
            if needed_blocks and not allocate(decode_blocks, needed_blocks):
                break
            now += seconds(decode_context)
            ends.append(now)
            decode_context += decodes
            iteration += 1
        self._decode_context = decode_context
        self.counters.steps += iteration - first
        self.counters.generated_tokens += (iteration - first) * decodes
        return now

    def _step_individually(self, now: float) -> tuple[float, list[ScheduledRequest], bool]:
        """Run one iteration request by request, because blocks or token budget are short."""
        for request in list(self._decode_start):
            self._stop_decoding(request)
        self._partial_prefills = []
        result = Scheduler.step(self, now)
        assert result is not None, "the oldest running request is always scheduled, since alone it fits"
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
        """Add a request with one token left to compute to the decoding ones."""
        iteration, block_size = len(self._iteration_ends), self.limits.block_size
        self._decode_start[request] = iteration
        self._decode_context += request.computed_tokens
        # It needs another block once its free positions are filled, and then every `block_size` iterations.
        free_positions = request.blocks.total * block_size - request.computed_tokens
        self._block_crossings[(iteration + free_positions) % block_size] += 1
        finish_iteration = iteration + request.output_tokens - request.generated_tokens
        heappush(self._finish_heap, (finish_iteration, next(self._tie_breaker), request))

    def _stop_decoding(self, request: ScheduledRequest) -> None:
        """Stop counting a request among the decoding ones, if it is one, and bring its own fields up to date.

        The token counts, token times and blocks that it gained since `_start_decoding` were kept for all decoding
        requests together; its share of them moves to the request.
        """
        start = self._decode_start.pop(request, None)
        if start is None:
            return
        block_size = self.limits.block_size
        free_positions = request.blocks.total * block_size - request.computed_tokens
        self._block_crossings[(start + free_positions) % block_size] -= 1
        decoded_tokens = len(self._iteration_ends) - start
        request.computed_tokens += decoded_tokens
        request.generated_tokens += decoded_tokens
        self._decode_context -= request.computed_tokens
        self._token_times[request].extend(self._iteration_ends[start:])
        new_blocks = -(-request.computed_tokens // block_size) - request.blocks.total
        if new_blocks > 0:
            request.blocks.private_count += new_blocks
            self._decode_blocks.private_count -= new_blocks

    def _finish_request(self, request: ScheduledRequest, end_time: float) -> None:
        request.finish_time = end_time
        self.block_pool.release(request.blocks)
        self.running.remove(request)
