"""A world that is not what the predictor believes: every cost off by a factor of its own.

A factor is log-normal with median 1. It is drawn from the seed and the name of what it belongs to,
so the same name has the same factor for every candidate, and in every process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random

from autotuner.predict.efficiencies import Efficiencies
from autotuner.predict.memory import MemoryPlan


@dataclass(frozen=True, slots=True)
class Skew:
    """`sd` is the standard deviation of each factor's logarithm; 0 distorts nothing."""

    seed: int = 0
    sd: float = 0.0

    def factor(self, *name: object) -> float:
        """The factor of one cost, or of one value of a parameter."""
        if not self.sd:
            return 1.0
        return math.exp(Random(f"{self.seed} {name}").normalvariate(0.0, self.sd))


@dataclass(frozen=True, slots=True)
class SkewedParameters:
    """The parameters whose values have factors of their own."""

    tp: int
    pp: int
    weight_dtype: str | None
    kv_dtype: str
    block_size: int
    max_batched_tokens: int
    max_running_requests: int
    chunked_prefill: bool
    cuda_graph: bool


def skewed_efficiencies(efficiencies: Efficiencies, skew: Skew, parameters: SkewedParameters) -> Efficiencies:
    """Distort what iterations cost, by operator and by the parameter values that touch it."""
    if not skew.sd:
        return efficiencies
    f = skew.factor
    spread = f("parallel", parameters.tp, parameters.pp)
    weights = f("weights", parameters.weight_dtype) * spread
    matrices = f("matrices", parameters.weight_dtype) * spread * f("max_batched_tokens", parameters.max_batched_tokens)
    cache = f("decode attention") * f("kv_cache", parameters.kv_dtype) * f("block_size", parameters.block_size)
    collectives = f("collectives") * f("collectives of", parameters.tp, parameters.pp)
    prompts = f("prompt attention") * f("chunked_prefill", parameters.chunked_prefill)
    return replace(
        efficiencies,
        gemm_compute=efficiencies.gemm_compute * matrices,
        attention_proj_memory=efficiencies.attention_proj_memory * weights,
        mlp_memory=efficiencies.mlp_memory * weights,
        expert_compute=efficiencies.expert_compute * matrices * f("experts"),
        expert_memory=efficiencies.expert_memory * weights * f("experts"),
        prefill_attention=efficiencies.prefill_attention * prompts,
        prefill_mla=efficiencies.prefill_mla * prompts,
        decode_compute=efficiencies.decode_compute * cache,
        decode_memory=efficiencies.decode_memory * cache,
        state_memory=efficiencies.state_memory * f("state"),
        elementwise=efficiencies.elementwise * f("elementwise"),
        permute=efficiencies.permute * f("permute"),
        allreduce_latency=efficiencies.allreduce_latency * collectives,
        allreduce_bytes=efficiencies.allreduce_bytes * collectives,
        dispatch_latency=efficiencies.dispatch_latency * collectives,
        dispatch_bytes=efficiencies.dispatch_bytes * collectives,
        launch=efficiencies.launch * f("launch") * f("cuda_graph", parameters.cuda_graph),
        host=efficiencies.host * f("host"),
        step=efficiencies.step * f("step") * f("max_running_requests", parameters.max_running_requests),
    )


def skewed_memory(plan: MemoryPlan, skew: Skew, parameters: SkewedParameters) -> MemoryPlan:
    """Distort what is not weights: activations, the engine's overhead, and so the KV cache that is left."""
    if not skew.sd:
        return plan
    activations = int(
        plan.activations * skew.factor("activations") * skew.factor("activations of", parameters.max_batched_tokens)
    )
    overhead = int(plan.overhead * skew.factor("overhead") * skew.factor("overhead of", parameters.tp * parameters.pp))
    left = max(0, plan.budget - plan.weights - activations - overhead)
    return replace(
        plan,
        activations=activations,
        overhead=overhead,
        kv_tokens=left // plan.kv_bytes_per_token if plan.kv_bytes_per_token else left,
    )


def start_time_factor(skew: Skew, parameters: SkewedParameters) -> float:
    """By how much loading the model takes longer."""
    return skew.factor("start") * skew.factor("start of", parameters.tp * parameters.pp)
