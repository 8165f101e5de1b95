"""Fitted constants, resolved for one deployment, and the seconds an iteration takes with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from autotuner.predict.operators import Work

SHARPNESS = 3
"""How sharply the slower of arithmetic and memory wins; infinity would be a plain maximum."""


@dataclass(frozen=True, slots=True)
class Rates:
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
class Costs:
    """By what factor kinds of operators take longer than the constants say; 1 where those are right."""

    weights: float = 1.0
    matrices: float = 1.0
    attention: float = 1.0
    collectives: float = 1.0
    kernels: float = 1.0
    host: float = 1.0

    def of(self, rates: Rates) -> Rates:
        """Rates with these factors."""
        changed = {
            name: getattr(rates, name) * factor
            for kind, names in KINDS.items()
            if (factor := getattr(self, kind)) != 1.0
            for name in names
        }
        return replace(rates, **changed) if changed else rates


AS_FITTED = Costs()
"""What the constants say."""

KINDS = {
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


def slower(left: float, right: float) -> float:
    """The larger of two times, a little more where they are close and cannot overlap fully."""
    total: float = (left**SHARPNESS + right**SHARPNESS) ** (1 / SHARPNESS)
    return total


def device_parts(work: Work, by: Rates) -> StepParts:
    """Seconds of an iteration on the device; arrays in, arrays out."""
    attention = work.context * by.context + work.latent * by.latent_context
    attention += slower(work.decode_c * by.decode_compute, work.decode_m * by.decode_memory)
    experts = (work.expert_m + by.idle * work.idle_m) * by.expert_memory
    return StepParts(
        mixer=slower(work.mixer_c * by.gemm_compute, work.mixer_m * by.mixer_memory),
        dense=slower(work.dense_c * by.gemm_compute, work.dense_m * by.dense_memory),
        expert=slower(work.expert_c * by.expert_compute, experts) * by.imbalance,
        head=slower(work.head_c * by.gemm_compute, work.head_m * by.mixer_memory),
        attention=attention,
        state=work.state_m * by.state + work.state_c * by.gemm_compute * 4,
        elementwise=work.elementwise * by.elementwise + work.permute * by.permute,
        collectives=work.reductions * by.reduce_latency
        + work.reduced * by.reduce_bytes
        + work.oneshot * by.reduce_oneshot
        + work.dispatches * by.dispatch_latency
        + work.dispatched * by.dispatch_bytes,
        launch=by.launch,
        step=by.step,
    )


def step_parts(work: Work, by: Rates, *, eager: bool) -> StepParts:
    """Seconds of an iteration by operator; an eager one is no faster than its launches."""
    parts = device_parts(work, by)
    if not eager:
        return parts
    busy = parts.total - parts.step
    return parts._replace(launch=parts.launch + slower(busy, by.host) - busy)
