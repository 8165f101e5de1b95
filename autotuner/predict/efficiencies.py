"""Fitted constants, resolved for one deployment, and the seconds an iteration takes with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from autotuner.predict.operators import Work

SMOOTH_MAX_POWER = 3
"""How sharply the slower of arithmetic and memory wins; infinity would be a plain maximum."""


@dataclass(frozen=True, slots=True)
class Efficiencies:
    """Inverse efficiencies (1: the data sheet's figure), latencies and floors in seconds.

    `launch` is what the kernels of an iteration cost at least, `host` what launching them one
    by one costs where no graph is replayed, `step` what an iteration costs besides; `idle` is the
    share that is read of the experts no token picked.
    """

    gemm_compute: float = 1.0
    mixer_memory: float = 1.0
    dense_memory: float = 1.0
    expert_compute: float = 1.0
    expert_memory: float = 1.0
    context: float = 1.0
    latent_context: float = 1.0
    decode_compute: float = 1.0
    decode_memory: float = 1.0
    state: float = 1.0
    elementwise: float = 1.0
    permute: float = 1.0
    reduce_latency: float = 0.0
    reduce_bytes: float = 1.0
    reduce_oneshot: float = 1.0
    dispatch_latency: float = 0.0
    dispatch_bytes: float = 1.0
    imbalance: float = 1.0
    idle: float = 0.0
    launch: float = 0.0
    host: float = 0.0
    step: float = 0.0


@dataclass(frozen=True, slots=True)
class CostFactors:
    """By what factor kinds of operators take longer than the constants say; 1 where those are right."""

    weights: float = 1.0
    matrices: float = 1.0
    attention: float = 1.0
    collectives: float = 1.0
    kernels: float = 1.0
    host: float = 1.0

    def apply_to(self, efficiencies: Efficiencies) -> Efficiencies:
        """Rates with these factors."""
        changed = {
            name: getattr(efficiencies, name) * factor
            for kind, names in COST_KINDS.items()
            if (factor := getattr(self, kind)) != 1.0
            for name in names
        }
        return replace(efficiencies, **changed) if changed else efficiencies


UNIT_COSTS = CostFactors()
"""What the constants say."""

COST_KINDS = {
    "weights": ("mixer_memory", "dense_memory", "expert_memory"),
    "matrices": ("gemm_compute", "expert_compute"),
    "attention": ("context", "latent_context", "decode_compute", "decode_memory", "state"),
    "collectives": ("reduce_latency", "reduce_bytes", "reduce_oneshot", "dispatch_latency", "dispatch_bytes"),
    "kernels": ("launch", "elementwise", "permute"),
    "host": ("host", "step"),
}
"""Kinds of operators, each with the rates that its cost goes by."""


class StepParts(NamedTuple):
    """Where one iteration's time goes, in seconds."""

    mixer: float
    dense: float
    expert: float
    head: float
    attention: float
    state: float
    elementwise: float
    collectives: float
    launch: float
    step: float

    @property
    def total(self) -> float:
        """Seconds of the whole iteration."""
        return sum(self)


def smooth_max(first: float, second: float) -> float:
    """The larger of two times, a little more where they are close and cannot overlap fully."""
    total: float = (first**SMOOTH_MAX_POWER + second**SMOOTH_MAX_POWER) ** (1 / SMOOTH_MAX_POWER)
    return total


def device_parts(work: Work, efficiencies: Efficiencies) -> StepParts:
    """Seconds of an iteration on the device; arrays in, arrays out."""
    attention = work.prefill_attention * efficiencies.context + work.prefill_mla * efficiencies.latent_context
    attention += smooth_max(
        work.decode_compute * efficiencies.decode_compute, work.decode_memory * efficiencies.decode_memory
    )
    experts = (work.expert_memory + efficiencies.idle * work.idle_expert_memory) * efficiencies.expert_memory
    return StepParts(
        mixer=smooth_max(
            work.attention_proj_compute * efficiencies.gemm_compute,
            work.attention_proj_memory * efficiencies.mixer_memory,
        ),
        dense=smooth_max(work.mlp_compute * efficiencies.gemm_compute, work.mlp_memory * efficiencies.dense_memory),
        expert=smooth_max(work.expert_compute * efficiencies.expert_compute, experts) * efficiencies.imbalance,
        head=smooth_max(work.head_compute * efficiencies.gemm_compute, work.head_memory * efficiencies.mixer_memory),
        attention=attention,
        state=work.state_memory * efficiencies.state + work.state_compute * efficiencies.gemm_compute * 4,
        elementwise=work.elementwise * efficiencies.elementwise + work.permute * efficiencies.permute,
        collectives=work.allreduce_count * efficiencies.reduce_latency
        + work.allreduce_transfer * efficiencies.reduce_bytes
        + work.allreduce_oneshot * efficiencies.reduce_oneshot
        + work.dispatch_count * efficiencies.dispatch_latency
        + work.dispatch_transfer * efficiencies.dispatch_bytes,
        launch=efficiencies.launch,
        step=efficiencies.step,
    )


def step_parts(work: Work, efficiencies: Efficiencies, *, eager: bool) -> StepParts:
    """Seconds of an iteration by operator; an eager one is no faster than its launches."""
    parts = device_parts(work, efficiencies)
    if not eager:
        return parts
    busy = parts.total - parts.step
    return parts._replace(launch=parts.launch + smooth_max(busy, efficiencies.host) - busy)
