"""What requests see when many are served at once: from iterations to TTFT and TPOT."""

from __future__ import annotations

import math
from typing import NamedTuple

from autotuner.predict.calibration import ServingConstants

DEFAULT_BATCHED_TOKENS = 8192
"""Prompt tokens an engine batches into one iteration."""


class IterationSeconds(NamedTuple):
    """Seconds of the iterations a closed loop is made of.

    `decode` of the whole batch; `alone` of one prompt, `mixed` of one prompt with the batch, and
    `batched` of `prompts` prompts at once.
    """

    decode: float
    single_prefill: float
    mixed: float
    batched_prefill: float
    prompts: float


class ClosedLoopLoad(NamedTuple):
    """A closed loop on one replica: `batch` requests run, of `offered` in flight on it.

    `others` of them prefill while one decodes, `replicas` run on other data-parallel replicas,
    and `queued` wait for KV cache per running one. `share` of the prompts that come while one
    decodes find room in the iterations; the rest wait.
    """

    isl: float
    osl: float
    batch: float
    others: float
    other_replica_requests: float
    queued: float
    admitted_share: float = 1.0


def closed_loop_load(
    isl: float, osl: float, concurrency: float, *, dp: int, capacity: float, prompt_token_limit: float = math.inf
) -> ClosedLoopLoad:
    """A closed loop of so many requests over `dp` replicas that hold `capacity` each at most.

    `room` is how many prompt tokens an iteration takes.
    """
    offered = max(1.0, concurrency / dp)
    batch = min(offered, max(1.0, capacity))
    others, queued = max(0.0, batch - 1), max(0.0, offered / max(1.0, capacity) - 1)
    share = min(1.0, prompt_token_limit / isl * osl / max(others, 1e-9))
    return ClosedLoopLoad(isl, osl, batch, others, batch * (dp - 1), queued, share)


def mean_tpot(
    load: ClosedLoopLoad, steps: IterationSeconds, constants: ServingConstants, tokens_per_step: float = 1.0
) -> float:
    """Mean seconds between tokens: a decode iteration, and what prompts add to some of them.

    `arrivals` prompts come per decode iteration. Those that arrive in the same one share its
    fixed costs, so that of many short prompts each adds little.
    """
    arrivals = (
        load.admitted_share * (load.others + constants.replica_interference * load.other_replica_requests) / load.osl
    )
    one = steps.mixed - steps.decode if constants.mixes_phases else steps.single_prefill
    further = _marginal_prompt_seconds(steps)
    return steps.decode / tokens_per_step + arrivals * further + arrivals / (1 + arrivals) * (one - further)


def _marginal_prompt_seconds(steps: IterationSeconds) -> float:
    """Seconds that one more prompt costs in an iteration; as many as one alone where one fills it."""
    return (steps.batched_prefill - steps.single_prefill + (steps.prompts <= 1) * steps.single_prefill) / (
        steps.prompts - (steps.prompts > 1)
    )


def mean_ttft(load: ClosedLoopLoad, steps: IterationSeconds, constants: ServingConstants, tpot: float) -> float:
    """Mean seconds to the first token.

    A request waits some iterations, then for its own prefill. Where prompts are held back until
    every replica has one, it waits about as long as passes between two prompts of a replica. In
    the initial burst it also waits for half of the others, where the KV cache is full for one of
    the running to end, and where more prompts come than iterations have room for until those
    before it are through.
    """
    held = constants.gather / (1 + constants.gather * load.batch / load.osl)
    own = steps.mixed if constants.mixes_phases else steps.single_prefill
    burst = constants.burst_share * load.others * steps.batched_prefill / steps.prompts
    queue = constants.queue_scale * load.queued * load.osl * tpot
    backlog = (
        (1 - load.admitted_share)
        * (load.others + constants.replica_interference * load.other_replica_requests)
        * _marginal_prompt_seconds(steps)
    )
    waited = (constants.wait_iterations + held) * tpot
    return constants.overhead + waited + own + constants.host_per_token * load.isl + burst + queue + backlog
