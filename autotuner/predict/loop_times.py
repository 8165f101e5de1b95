"""Parts of TTFT and TPOT of a closed loop: by a simulated schedule, or quicker in closed form."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from autotuner.predict.calibration import ServingConstants
from autotuner.predict.efficiencies import Efficiencies, StepParts, step_parts
from autotuner.predict.harness import Harness
from autotuner.predict.model_on_gpus import ModelOnGpus, iteration_seconds
from autotuner.predict.queueing import mean_tpot, mean_ttft, scheduler_wait
from autotuner.predict.schedule import simulate_schedule
from autotuner.predict.step_curves import cache_limit, deployment_curves, step_work
from autotuner.predict.traffic import Traffic

FRONT_END, SCHEDULER, QUEUE, PREFILL = "front end", "scheduler wait", "queue", "prefill"
DECODE, INTERFERENCE = "decode steps", "prefills of others"


class LoopTimes(NamedTuple):
    """Seconds of the parts of TTFT and TPOT by name, and by operator of one prompt and of one decode step."""

    ttft: dict[str, float]
    tpot: dict[str, float]
    prefill: StepParts
    decode: StepParts


def closed_form_times(
    deployment: ModelOnGpus,
    efficiencies: Efficiencies,
    constants: ServingConstants,
    traffic: Traffic,
    concurrency: float,
    *,
    separate_prefill: bool = False,
) -> LoopTimes:
    """The parts of an endless closed loop; with `separate_prefill` prompts run on other workers."""
    load = deployment.replica_load(traffic.isl, traffic.osl, concurrency)
    cached_tokens, queries = traffic.isl * traffic.prefix_hit, 1 + traffic.draft_tokens
    work = deployment.iteration_work(load, cached_tokens=cached_tokens, queries=queries)
    seconds, decode, prefill = iteration_seconds(work, efficiencies, cuda_graph=deployment.cuda_graph)
    draft_cost = traffic.draft_cost(deployment.shape)
    seconds = seconds._replace(decode=seconds.decode * draft_cost)
    if separate_prefill:
        load = load._replace(queue_ratio=0.0)
    decode_load = load._replace(other_requests=0.0, other_replica_requests=0.0) if separate_prefill else load
    tpot = mean_tpot(decode_load, seconds, constants, traffic.tokens_per_step)
    ttft = mean_ttft(load, seconds, constants, tpot)
    front_end = constants.overhead + constants.host_per_token * load.isl
    wait = scheduler_wait(load.batch, load.osl, constants, tpot)
    decode_seconds = seconds.decode / traffic.tokens_per_step
    return LoopTimes(
        {FRONT_END: front_end, SCHEDULER: wait, QUEUE: ttft - front_end - wait - prefill.total, PREFILL: prefill.total},
        {DECODE: decode_seconds, INTERFERENCE: tpot - decode_seconds},
        prefill,
        decode,
    )


def simulated_times(
    deployment: ModelOnGpus,
    efficiencies: Efficiencies,
    constants: ServingConstants,
    traffic: Traffic,
    concurrency: float,
    harness: Harness,
    *,
    separate_prefill: bool = False,
) -> LoopTimes:
    """The parts of a closed loop that this harness drives, its schedule simulated."""
    share, dp = harness.mean_length_share, deployment.layout.dp
    in_flight = max(1.0, concurrency / dp)
    work = step_work(
        deployment,
        isl=traffic.isl * share,
        osl=traffic.osl * share,
        in_flight=in_flight,
        prefix_hit=traffic.prefix_hit,
        queries=1 + traffic.draft_tokens,
    )
    curves = deployment_curves(
        deployment,
        efficiencies,
        work,
        mixes_phases=constants.mixes_phases,
        computed_share=1 - traffic.prefix_hit,
        draft_cost=traffic.draft_cost(deployment.shape),
    )
    limit = cache_limit(deployment)
    if separate_prefill:
        limit = replace(limit, tokens=float("inf"))
    schedule = simulate_schedule(
        curves,
        harness,
        isl=traffic.isl,
        osl=traffic.osl,
        in_flight=in_flight,
        limit=limit,
        tokens_per_step=traffic.tokens_per_step,
    )
    stall = schedule.stall * (1 + constants.replica_interference * (dp - 1))
    if separate_prefill:
        stall = 0.0
    tpot = schedule.decode + stall
    return LoopTimes(
        {
            FRONT_END: constants.overhead + constants.host_per_token * traffic.isl * share,
            SCHEDULER: scheduler_wait(in_flight, traffic.osl * share, constants, tpot),
            QUEUE: schedule.queue,
            PREFILL: schedule.prefill,
        },
        {DECODE: schedule.decode, INTERFERENCE: stall},
        step_parts(work.prompt, efficiencies, eager=True),
        step_parts(work.decode[-1], efficiencies, eager=not deployment.cuda_graph),
    )
