"""A closed loop on one replica, by jumping from event to event of an engine's scheduler.

An event is the end of a request, or a step with prompts; the decode steps between two events are
counted, not run. Many requests in flight are simulated as at most MAX_GROUPS groups of alike ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from autotuner.predict.harness import Harness

MAX_GROUPS = 16
"""Groups that requests in flight are simulated as; with 32 medians of held-out errors change by 0.1 points."""
MAX_WAVES = 10
"""Waves simulated at most: later ones are like the last."""
LENGTH_STRIDES = (0.6180339887498949, 0.7548776662466927)
"""Strides of the low-discrepancy sequences that lengths of prompts and outputs are drawn from."""


@dataclass(frozen=True, slots=True)
class StepCurves:
    """Seconds of a replica's steps as functions of what is in them.

    `decode` at `decode_batches` sequences, linear between; `prompt_base` + `prompt_slope` per new prompt token for a
    step of at most `token_limit` new tokens; `decode_in_mixed` per sequence that decodes in such a step where the
    engine `mixes_phases`. `computed_share` of a prompt is computed, the rest is in the prefix cache.
    """

    decode_batches: Sequence[float]
    decode: Sequence[float]
    prompt_base: float
    prompt_slope: float
    token_limit: float
    decode_in_mixed: float
    mixes_phases: bool
    computed_share: float = 1.0

    def decode_seconds(self, sequences: float) -> float:
        """Seconds of a step in which this many sequences decode."""
        batches, seconds = self.decode_batches, self.decode
        if sequences <= batches[0]:
            return seconds[0]
        for index in range(1, len(batches)):
            if sequences <= batches[index]:
                share = (sequences - batches[index - 1]) / (batches[index] - batches[index - 1])
                return seconds[index - 1] + share * (seconds[index] - seconds[index - 1])
        return seconds[-1]

    def prompt_seconds(self, tokens: float) -> float:
        """Seconds of the steps that this many new prompt tokens take, in steps of at most `token_limit`."""
        steps = max(1.0, tokens / self.token_limit)
        return steps * self.prompt_base + tokens * self.prompt_slope


@dataclass(frozen=True, slots=True)
class CacheLimit:
    """What bounds the requests that run: KV cache in tokens, tokens a sequence takes whatever its length, requests.

    An engine that `reserves` admits a request only where its whole answer fits; another preempts the youngest
    request when the cache is full, and computes its prompt and answer again.
    """

    tokens: float = math.inf
    tokens_per_sequence: float = 0.0
    running: float = math.inf
    reserves: bool = True


class ScheduleTimes(NamedTuple):
    """Mean seconds per request.

    `queue` from its arrival to the start of its prefill, `prefill` of that; per token after the first `decode` in
    decode steps and `stall` in what prompts of others add.
    """

    queue: float
    prefill: float
    decode: float
    stall: float


def simulate_schedule(
    curves: StepCurves,
    harness: Harness,
    *,
    isl: float,
    osl: float,
    in_flight: float,
    limit: CacheLimit,
    tokens_per_step: float = 1.0,
) -> ScheduleTimes:
    """Mean times of the counted requests of a closed loop with `in_flight` requests on the replica."""
    replica = _Replica(curves, limit, isl, osl, harness, in_flight, tokens_per_step)
    return replica.run()


class _Group:
    """Requests that are sent, prefilled and ended together; steps are decode steps.

    `steps` of its answer, of which `done` were made before its last preemption, at `admitted` it was last admitted, at
    `finish` it ends; `decode_clock` and `stall_clock` are those at its first token.
    """

    __slots__ = (
        "admitted",
        "arrival",
        "decode_clock",
        "done",
        "finish",
        "number",
        "prompt",
        "stall_clock",
        "steps",
    )

    def __init__(self, number: int, arrival: float, prompt: float, steps: float) -> None:
        self.number, self.arrival, self.prompt, self.steps = number, arrival, prompt, steps
        self.done = self.admitted = self.finish = self.decode_clock = self.stall_clock = 0.0


class _Replica:
    """The simulation: clocks in seconds and in decode steps, running groups, the youngest last, and waiting ones."""

    def __init__(
        self,
        curves: StepCurves,
        limit: CacheLimit,
        isl: float,
        osl: float,
        harness: Harness,
        in_flight: float,
        tokens_per_step: float,
    ) -> None:
        self.curves, self.limit, self.tokens_per_step = curves, limit, tokens_per_step
        self.isl, self.steps = isl, max(1.0, osl - 1) / tokens_per_step
        self.shortest = harness.length_ratio
        groups = max(1, min(MAX_GROUPS, round(in_flight)))
        self.size = max(1.0, in_flight) / groups
        waves = max(1, min(MAX_WAVES, round(harness.waves)))
        self.total, self.uncounted = groups * waves, groups * min(harness.warmup_waves, waves - 1)
        self.decode_seconds = [curves.decode_seconds(running * self.size) for running in range(groups + 1)]
        self.cache_tokens = limit.tokens / self.size
        self.most_running = groups if math.isinf(limit.running) else max(1, int(limit.running / self.size + 1e-9))
        self.waiting: list[_Group] = []
        self.running: list[_Group] = []
        self.clock = self.step = self.decode_clock = self.stall_clock = 0.0
        self.used_tokens = self.prefill_end = 0.0
        self.is_full = False  # since a preemption no group has ended
        self.sent = self.ended = 0
        self.queue = self.prefill = self.decode = self.stall = 0.0
        for _ in range(groups):
            self._send()

    def run(self) -> ScheduleTimes:
        """Simulate until the last group ends."""
        while self.ended < self.total:
            admitted, tokens = self._admit() if self.waiting and not self.is_full else ((), 0.0)
            if admitted:
                self._prefill(admitted, tokens)
            else:
                self._decode()
            if not admitted or self.curves.mixes_phases:
                self._end_finished()
        counted = self.total - self.uncounted
        return ScheduleTimes(self.queue / counted, self.prefill / counted, self.decode / counted, self.stall / counted)

    def _send(self) -> None:
        """Send a group, its lengths from low-discrepancy sequences."""
        self.sent += 1
        shortest, spread = self.shortest, 1 - self.shortest
        prompt = self.isl * (shortest + spread * (self.sent * LENGTH_STRIDES[0] % 1.0))
        steps = self.steps * (shortest + spread * (self.sent * LENGTH_STRIDES[1] % 1.0))
        self.waiting.append(_Group(self.sent - 1, self.clock, prompt, steps))

    def _admit(self) -> tuple[list[_Group], float]:
        """Take the waiting groups that fit into one step and into the cache, and their new prompt tokens."""
        admitted, tokens, waiting, limit = list[_Group](), 0.0, self.waiting, self.limit
        for group in waiting[: max(0, self.most_running - len(self.running))]:
            again = group.done * self.tokens_per_step
            new_tokens = self.size * (group.prompt * self.curves.computed_share + again)
            if admitted and tokens + new_tokens > self.curves.token_limit:
                break
            answer = group.steps * self.tokens_per_step if limit.reserves else again
            needed = group.prompt + answer + limit.tokens_per_sequence
            if self.used_tokens + needed > self.cache_tokens and (self.running or admitted):
                break
            self.used_tokens += needed
            tokens += new_tokens
            admitted.append(group)
        del waiting[: len(admitted)]
        return admitted, tokens

    def _prefill(self, admitted: Sequence[_Group], tokens: float) -> None:
        """Steps with the prompts of these groups; running ones decode in them where the engine mixes phases."""
        curves, others = self.curves, len(self.running)
        steps = max(1.0, tokens / curves.token_limit)
        mixed = others * self.size * curves.decode_in_mixed if curves.mixes_phases else 0.0
        seconds = curves.prompt_seconds(tokens) + steps * mixed
        decoding = 0.0
        if curves.mixes_phases and others:
            decoding = min(steps * self.decode_seconds[others], seconds)
            self._pass_steps(steps, others)
        self.decode_clock += decoding
        self.stall_clock += seconds - decoding
        for group in admitted:
            if not group.done:
                if group.number >= self.uncounted:
                    self.queue += self.clock - group.arrival
                    self.prefill += self._own_prefill(group, seconds, steps, mixed)
                group.decode_clock, group.stall_clock = self.decode_clock, self.stall_clock
            group.admitted, group.finish = self.step, self.step + group.steps - group.done
        self.running += admitted
        self.clock += seconds
        self.prefill_end = self.clock

    def _own_prefill(self, group: _Group, seconds: float, steps: float, mixed: float) -> float:
        """Mean seconds from the start of these steps to the first token of the requests of a group.

        Requests of a group arrive apart where nobody waits, and follow each other where they do.
        """
        if self.size <= 1:
            return seconds
        prompt = group.prompt * self.curves.computed_share
        alone = self.curves.prompt_seconds(prompt) + max(1.0, prompt / self.curves.token_limit) * mixed
        if group.arrival >= self.prefill_end and group.arrival > 0:
            return alone
        return min(seconds, max(alone, seconds * (1 + 1 / min(self.size, steps)) / 2))

    def _decode(self) -> None:
        """Decode steps until a group ends or the cache is full, which preempts the youngest group."""
        count = len(self.running)
        steps = max(0.0, min([group.finish for group in self.running]) - self.step)
        if not self.limit.reserves and count > 1:
            room = (self.cache_tokens - self.used_tokens) / (count * self.tokens_per_step)
            if room < steps:
                steps = max(0.0, room)
                self._preempt(steps)
        seconds = steps * self.decode_seconds[count]
        self.clock += seconds
        self.decode_clock += seconds
        self._pass_steps(steps, count)

    def _preempt(self, steps: float) -> None:
        """Put the youngest group back before the waiting ones, after these steps."""
        group = self.running.pop()
        group.done += self.step + steps - group.admitted
        self.used_tokens -= group.prompt + group.done * self.tokens_per_step + self.limit.tokens_per_sequence
        self.waiting.insert(0, group)
        self.is_full = True

    def _pass_steps(self, steps: float, running: int) -> None:
        self.step += steps
        if not self.limit.reserves:
            self.used_tokens += running * steps * self.tokens_per_step

    def _end_finished(self) -> None:
        """End groups whose answers are done, and send as many others as are left."""
        now = self.step + 1e-6
        finished = [group for group in self.running if group.finish <= now]
        if finished:
            self.is_full = False
            self.running = [group for group in self.running if group.finish > now]
        for group in finished:
            self.ended += 1
            answer = group.steps if self.limit.reserves else group.done + self.step - group.admitted
            self.used_tokens -= group.prompt + answer * self.tokens_per_step + self.limit.tokens_per_sequence
            if group.number >= self.uncounted:
                tokens = group.steps * self.tokens_per_step
                self.decode += (self.decode_clock - group.decode_clock) / tokens
                self.stall += (self.stall_clock - group.stall_clock) / tokens
            if self.sent < self.total:
                self._send()
