"""Seconds of the steps of a closed loop as the schedule needs them, from the operators of a deployment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from autotuner.predict.efficiencies import Efficiencies, step_parts
from autotuner.predict.model_on_gpus import ModelOnGpus
from autotuner.predict.operators import Work
from autotuner.predict.schedule import CacheLimit, StepCurves


class StepWork(NamedTuple):
    """Work of the steps that curves are drawn through.

    `decode` of `batches` sequences; `prompt` of `prompt_tokens` new tokens, one prompt or as much of it as a step
    takes; `second` of `second_tokens`, several prompts or half of one; `mixed` of `prompt` with `others` decoding.
    """

    decode: tuple[Work, ...]
    prompt: Work
    second: Work
    mixed: Work
    batches: tuple[float, ...]
    prompt_tokens: float
    second_tokens: float
    others: float


def step_work(
    deployment: ModelOnGpus, *, isl: float, osl: float, in_flight: float, prefix_hit: float = 0.0, queries: float = 1.0
) -> StepWork:
    """The work of a replica's steps; lengths are means, `queries` tokens verified per sequence and step."""
    work, limit, pp = deployment.operators.work, float(deployment.max_batched_tokens), deployment.layout.pp
    batch, context = max(1.0, in_flight), isl + osl / 2
    batches = (1.0, max(1.0, batch / 4), max(1.0, batch / 2), batch)
    new, cached = isl * (1 - prefix_hit), isl * prefix_hit
    chunk = min(new, limit)
    # The chunks of a long prompt have half of the others before them on average.
    prompt = (chunk, cached + (new - chunk) / 2)
    prompts = math.floor(min(limit / chunk, batch))
    second = [prompt] * prompts if prompts > 1 else [(chunk / 2, prompt[1])]
    others = max(1.0, batch - 1)
    decode_work = {size: work([], max(1.0, size / pp), context, queries=queries) for size in batches}
    return StepWork(
        decode=tuple(decode_work[size] for size in batches),
        prompt=work([prompt], 0, 0, other_replica_tokens=batch),
        second=work(second, 0, 0, other_replica_tokens=batch),
        mixed=work([prompt], others, context, other_replica_tokens=batch, queries=queries),
        batches=batches,
        prompt_tokens=chunk,
        second_tokens=chunk * prompts if prompts > 1 else chunk / 2,
        others=others,
    )


def step_curves(
    work: StepWork,
    decode: Sequence[float],
    prompt: float,
    second: float,
    mixed: float,
    *,
    token_limit: float,
    mixes_phases: bool,
    computed_share: float,
) -> StepCurves:
    """Curves through the seconds of these steps."""
    slope = (second - prompt) / (work.second_tokens - work.prompt_tokens)
    slope = max(0.0, min(slope, prompt / work.prompt_tokens))
    return StepCurves(
        decode_batches=work.batches,
        decode=decode,
        prompt_base=prompt - slope * work.prompt_tokens,
        prompt_slope=slope,
        token_limit=max(token_limit, 1.0),
        decode_in_mixed=max(0.0, mixed - prompt) / work.others,
        mixes_phases=mixes_phases,
        computed_share=computed_share,
    )


def deployment_curves(
    deployment: ModelOnGpus,
    efficiencies: Efficiencies,
    work: StepWork,
    *,
    mixes_phases: bool,
    computed_share: float = 1.0,
    draft_cost: float = 1.0,
) -> StepCurves:
    """The curves of a deployment; a decode step with drafts takes `draft_cost` times as long."""
    eager = not deployment.cuda_graph
    prompt, second, mixed = (
        step_parts(item, efficiencies, eager=True).total for item in (work.prompt, work.second, work.mixed)
    )
    return step_curves(
        work,
        [draft_cost * step_parts(item, efficiencies, eager=eager).total for item in work.decode],
        prompt,
        second,
        mixed,
        token_limit=deployment.max_batched_tokens,
        mixes_phases=mixes_phases,
        computed_share=computed_share,
    )


def cache_limit(deployment: ModelOnGpus) -> CacheLimit:
    """What bounds the requests that run at once on one replica."""
    plan = deployment.memory_plan
    running = float(deployment.max_running_requests or math.inf)
    reserves = deployment.engine != "vllm"
    if not plan.kv_bytes_per_token:
        return CacheLimit(running=min(running, plan.sequence_capacity(0)), reserves=reserves)
    per_token = plan.kv_bytes_per_token
    return CacheLimit(plan.kv_pool / per_token, plan.kv_bytes_per_sequence / per_token, running, reserves)
