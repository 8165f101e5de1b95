"""What requests see when many are served at once: from iterations to TTFT and TPOT."""

from __future__ import annotations

import math
from typing import NamedTuple

from autotuner.predict.calibration import Serving

PREFILL_TOKENS = 8192
"""Prompt tokens an engine batches into one iteration."""


class Steps(NamedTuple):
    """Seconds of the iterations a closed loop is made of.

    `decode` of the whole batch; `alone` of one prompt, `mixed` of one prompt with the batch, and
    `batched` of `prompts` prompts at once.
    """

    decode: float
    alone: float
    mixed: float
    batched: float
    prompts: float


class Loop(NamedTuple):
    """A closed loop on one replica: `batch` requests run, of `offered` in flight on it.

    `others` of them prefill while one decodes, `replicas` run on other data-parallel replicas,
    and `queued` wait for KV cache per running one. `share` of the prompts that come while one
    decodes find room in the iterations; the rest wait.
    """

    isl: float
    osl: float
    batch: float
    others: float
    replicas: float
    queued: float
    share: float = 1.0


def loop_of(isl: float, osl: float, concurrency: float, *, dp: int, capacity: float, room: float = math.inf) -> Loop:
    """A closed loop of so many requests over `dp` replicas that hold `capacity` each at most.

    `room` is how many prompt tokens an iteration takes.
    """
    offered = max(1.0, concurrency / dp)
    batch = min(offered, max(1.0, capacity))
    others, queued = max(0.0, batch - 1), max(0.0, offered / max(1.0, capacity) - 1)
    share = min(1.0, room / isl * osl / max(others, 1e-9))
    return Loop(isl, osl, batch, others, batch * (dp - 1), queued, share)


def tpot_of(loop: Loop, steps: Steps, by: Serving, tokens_per_step: float = 1.0) -> float:
    """Mean seconds between tokens: a decode iteration, and what prompts add to some of them.

    `arrivals` prompts come per decode iteration. Those that arrive in the same one share its
    fixed costs, so that of many short prompts each adds little.
    """
    arrivals = loop.share * (loop.others + by.replicas * loop.replicas) / loop.osl
    one = steps.mixed - steps.decode if by.mixes else steps.alone
    further = _further(steps)
    return steps.decode / tokens_per_step + arrivals * further + arrivals / (1 + arrivals) * (one - further)


def _further(steps: Steps) -> float:
    """Seconds that one more prompt costs in an iteration; as many as one alone where one fills it."""
    return (steps.batched - steps.alone + (steps.prompts <= 1) * steps.alone) / (steps.prompts - (steps.prompts > 1))


def ttft_of(loop: Loop, steps: Steps, by: Serving, tpot: float) -> float:
    """Mean seconds to the first token.

    A request waits some iterations, then for its own prefill. Where prompts are held back until
    every replica has one, it waits about as long as passes between two prompts of a replica. In
    the initial burst it also waits for half of the others, where the KV cache is full for one of
    the running to end, and where more prompts come than iterations have room for until those
    before it are through.
    """
    held = by.gather / (1 + by.gather * loop.batch / loop.osl)
    own = steps.mixed if by.mixes else steps.alone
    burst = by.burst * loop.others * steps.batched / steps.prompts
    queue = by.saturation * loop.queued * loop.osl * tpot
    backlog = (1 - loop.share) * (loop.others + by.replicas * loop.replicas) * _further(steps)
    waited = (by.wait + held) * tpot
    return by.overhead + waited + own + by.per_token * loop.isl + burst + queue + backlog
