"""Inverse efficiencies of one model on one layout, and the seconds an iteration takes with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from autotuner.predict.operators import Work

SMOOTH_MAX_POWER = 3
"""Power of the mean of arithmetic and memory time; infinity would be a plain maximum.

Refitted with 2 or 5, benchmarks/predict/errors.py has medians of held-out models within 0.3 points of those with 3.
"""


@dataclass(frozen=True, slots=True)
class Efficiencies:
    """Inverse efficiencies (1: the data sheet's figure), and latencies and minimum times in seconds.

    `launch` is the least that the kernels of an iteration take, `host` what launching them one by
    one takes where no CUDA graph is replayed, `step` the rest of an iteration;
    `idle_expert_memory` is the share that is read of experts no token is routed to.
    """

    gemm_compute: float = 1.0
    mlp_compute: float = 1.0
    attention_proj_memory: float = 1.0
    mlp_memory: float = 1.0
    expert_compute: float = 1.0
    expert_memory: float = 1.0
    prefill_attention: float = 1.0
    prefill_mla: float = 1.0
    decode_compute: float = 1.0
    decode_memory: float = 1.0
    state_memory: float = 1.0
    elementwise: float = 1.0
    permute: float = 1.0
    allreduce_latency: float = 0.0
    allreduce_bytes: float = 1.0
    allreduce_oneshot: float = 1.0
    dispatch_latency: float = 0.0
    dispatch_bytes: float = 1.0
    expert_imbalance: float = 1.0
    idle_expert_memory: float = 0.0
    launch: float = 0.0
    host: float = 0.0
    step: float = 0.0


@dataclass(frozen=True, slots=True)
class CostFactors:
    """Factors on the time of each kind of operator; 1 leaves the fitted constants as they are."""

    weights: float = 1.0
    matrices: float = 1.0
    attention: float = 1.0
    collectives: float = 1.0
    kernels: float = 1.0
    host: float = 1.0

    def apply_to(self, efficiencies: Efficiencies) -> Efficiencies:
        """Inverse efficiencies multiplied by these factors."""
        scaled = {
            name: getattr(efficiencies, name) * factor
            for kind, names in COST_KINDS.items()
            if (factor := getattr(self, kind)) != 1.0
            for name in names
        }
        return replace(efficiencies, **scaled) if scaled else efficiencies


UNIT_COSTS = CostFactors()

COST_KINDS = {
    "weights": ("attention_proj_memory", "mlp_memory", "expert_memory"),
    "matrices": ("gemm_compute", "mlp_compute", "expert_compute"),
    "attention": ("prefill_attention", "prefill_mla", "decode_compute", "decode_memory", "state_memory"),
    "collectives": ("allreduce_latency", "allreduce_bytes", "allreduce_oneshot", "dispatch_latency", "dispatch_bytes"),
    "kernels": ("launch", "elementwise", "permute"),
    "host": ("host", "step"),
}
"""Fields of `Efficiencies` that each field of `CostFactors` multiplies."""


class StepParts(NamedTuple):
    """Seconds of one iteration by operator; the field names are keys of `autotune predict point --json`."""

    attention_proj: float
    mlp: float
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
        return sum(self)


def smooth_max(first: float, second: float) -> float:
    """Power mean without the 1/n: the larger of two times, and more where they are close and overlap less."""
    total: float = (first**SMOOTH_MAX_POWER + second**SMOOTH_MAX_POWER) ** (1 / SMOOTH_MAX_POWER)
    return total


def device_parts(work: Work, efficiencies: Efficiencies) -> StepParts:
    """Seconds of an iteration on the GPU, by operator; elementwise where the fields of `work` are arrays."""
    attention = work.prefill_attention * efficiencies.prefill_attention + work.prefill_mla * efficiencies.prefill_mla
    attention += smooth_max(
        work.decode_compute * efficiencies.decode_compute, work.decode_memory * efficiencies.decode_memory
    )
    experts = work.expert_memory + efficiencies.idle_expert_memory * work.idle_expert_memory
    experts *= efficiencies.expert_memory
    return StepParts(
        attention_proj=smooth_max(
            work.attention_proj_compute * efficiencies.gemm_compute,
            work.attention_proj_memory * efficiencies.attention_proj_memory,
        ),
        mlp=smooth_max(work.mlp_compute * efficiencies.mlp_compute, work.mlp_memory * efficiencies.mlp_memory),
        expert=smooth_max(work.expert_compute * efficiencies.expert_compute, experts) * efficiencies.expert_imbalance,
        head=smooth_max(
            work.head_compute * efficiencies.gemm_compute, work.head_memory * efficiencies.attention_proj_memory
        ),
        attention=attention,
        state=work.state_memory * efficiencies.state_memory + work.state_compute * efficiencies.gemm_compute * 4,
        elementwise=work.elementwise * efficiencies.elementwise + work.permute * efficiencies.permute,
        collectives=work.allreduce_count * efficiencies.allreduce_latency
        + work.allreduce_transfer * efficiencies.allreduce_bytes
        + work.allreduce_oneshot * efficiencies.allreduce_oneshot
        + work.dispatch_count * efficiencies.dispatch_latency
        + work.dispatch_transfer * efficiencies.dispatch_bytes,
        launch=efficiencies.launch,
        step=efficiencies.step,
    )


def step_parts(work: Work, efficiencies: Efficiencies, *, eager: bool) -> StepParts:
    """Seconds of an iteration by operator; without a CUDA graph it takes at least what launching its kernels takes."""
    parts = device_parts(work, efficiencies)
    if not eager:
        return parts
    busy = parts.total - parts.step
    return parts._replace(launch=parts.launch + smooth_max(busy, efficiencies.host) - busy)
