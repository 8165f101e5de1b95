"""Mean TTFT and TPOT of a closed loop, from the seconds of its iterations."""

from __future__ import annotations

import math
from typing import NamedTuple

from autotuner.predict.calibration import ServingConstants

DEFAULT_BATCHED_TOKENS = 8192
"""Prompt tokens an engine batches into one iteration: vLLM's max_num_batched_tokens on an H100."""


class IterationSeconds(NamedTuple):
    """Seconds of the iterations a closed loop is made of.

    `decode` of the whole batch, `single_prefill` of one prompt, `mixed` of one prompt with the
    batch, `batched_prefill` of `prompts` prompts at once.
    """

    decode: float
    single_prefill: float
    mixed: float
    batched_prefill: float
    prompts: float


class ClosedLoopLoad(NamedTuple):
    """A closed loop on one replica, of which `batch` requests run at once.

    While one of them decodes, `other_requests` prefill here and `other_replica_requests` on other
    data-parallel replicas. `queue_ratio` requests wait for KV cache per running one.
    `admitted_share` of the prompts find room in the iterations; the rest wait.
    """

    isl: float
    osl: float
    batch: float
    other_requests: float
    other_replica_requests: float
    queue_ratio: float
    admitted_share: float = 1.0


def closed_loop_load(
    isl: float, osl: float, concurrency: float, *, dp: int, capacity: float, prompt_token_limit: float = math.inf
) -> ClosedLoopLoad:
    """A closed loop of `concurrency` requests over `dp` replicas, each of which runs at most `capacity` at once.

    `prompt_token_limit` is how many prompt tokens an iteration takes.
    """
    in_flight = max(1.0, concurrency / dp)
    batch = min(in_flight, max(1.0, capacity))
    other_requests, queue_ratio = max(0.0, batch - 1), max(0.0, in_flight / max(1.0, capacity) - 1)
    admitted_share = min(1.0, prompt_token_limit / isl * osl / max(other_requests, 1e-9))
    return ClosedLoopLoad(isl, osl, batch, other_requests, batch * (dp - 1), queue_ratio, admitted_share)


def _interfering_requests(load: ClosedLoopLoad, constants: ServingConstants) -> float:
    """Requests whose prefills delay a decoding one, those of other replicas by their measured share."""
    return load.other_requests + constants.replica_interference * load.other_replica_requests


def mean_tpot(
    load: ClosedLoopLoad, seconds: IterationSeconds, constants: ServingConstants, tokens_per_step: float = 1.0
) -> float:
    """Mean seconds between tokens: a decode iteration, and what prompts add to some of them.

    `arrivals` prompts come per decode iteration. Those of one iteration share its fixed costs, so
    that of many short prompts each adds little.
    """
    arrivals = load.admitted_share * _interfering_requests(load, constants) / load.osl
    first_prompt = seconds.mixed - seconds.decode if constants.mixes_phases else seconds.single_prefill
    further_prompt = _marginal_prompt_seconds(seconds)
    prefill_delay = arrivals * further_prompt + arrivals / (1 + arrivals) * (first_prompt - further_prompt)
    return seconds.decode / tokens_per_step + prefill_delay


def _marginal_prompt_seconds(seconds: IterationSeconds) -> float:
    """Seconds that one more prompt adds to an iteration; those of a single prefill where one prompt fills it."""
    # Arithmetic instead of a branch, because a fit passes arrays.
    fills_iteration = seconds.prompts <= 1
    further_seconds = seconds.batched_prefill - seconds.single_prefill + fills_iteration * seconds.single_prefill
    further_prompts = seconds.prompts - (seconds.prompts > 1)
    return further_seconds / further_prompts


def scheduler_wait(batch: float, osl: float, constants: ServingConstants, tpot: float) -> float:
    """Mean seconds until the scheduler takes a request; none where no other request runs.

    Where prompts are held back until every replica has one, a request also waits about the time between two prompts of
    a replica.
    """
    gather_wait = constants.gather_iterations / (1 + constants.gather_iterations * batch / osl)
    return (constants.wait_iterations + gather_wait) * tpot * (1 - 1 / batch)


def mean_ttft(load: ClosedLoopLoad, seconds: IterationSeconds, constants: ServingConstants, tpot: float) -> float:
    """Mean seconds to the first token.

    A request waits for the scheduler, then for its own prefill. In the initial burst it also waits for half of the
    others; where the KV cache is full, for a running request to end; and where more prompts come than iterations have
    room for, for the prompts before it.
    """
    prefill = seconds.mixed if constants.mixes_phases else seconds.single_prefill
    burst = constants.burst_share * load.other_requests * seconds.batched_prefill / seconds.prompts
    queue = constants.queue_scale * load.queue_ratio * load.osl * tpot
    backlog = (1 - load.admitted_share) * _interfering_requests(load, constants) * _marginal_prompt_seconds(seconds)
    wait = scheduler_wait(load.batch, load.osl, constants, tpot)
    return constants.overhead + wait + prefill + constants.host_per_token * load.isl + burst + queue + backlog
