"""A world that is not what the predictor believes: every cost off by a factor of its own.

A factor is log-normal with median 1. It is drawn from the seed and the name of what it belongs to,
so the same name has the same factor for every candidate, and in every process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random

from autotuner.predict.efficiencies import Rates
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
class Configured:
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


def skewed_rates(rates: Rates, by: Skew, of: Configured) -> Rates:
    """Distort what iterations cost, by operator and by the parameter values that touch it."""
    if not by.sd:
        return rates
    f = by.factor
    spread = f("parallel", of.tp, of.pp)
    weights = f("weights", of.weight_dtype) * spread
    matrices = f("matrices", of.weight_dtype) * spread * f("max_batched_tokens", of.max_batched_tokens)
    cache = f("decode attention") * f("kv_cache", of.kv_dtype) * f("block_size", of.block_size)
    collectives = f("collectives") * f("collectives of", of.tp, of.pp)
    prompts = f("prompt attention") * f("chunked_prefill", of.chunked_prefill)
    return replace(
        rates,
        gemm_compute=rates.gemm_compute * matrices,
        mixer_memory=rates.mixer_memory * weights,
        dense_memory=rates.dense_memory * weights,
        expert_compute=rates.expert_compute * matrices * f("experts"),
        expert_memory=rates.expert_memory * weights * f("experts"),
        context=rates.context * prompts,
        latent_context=rates.latent_context * prompts,
        decode_compute=rates.decode_compute * cache,
        decode_memory=rates.decode_memory * cache,
        state=rates.state * f("state"),
        elementwise=rates.elementwise * f("elementwise"),
        permute=rates.permute * f("permute"),
        reduce_latency=rates.reduce_latency * collectives,
        reduce_bytes=rates.reduce_bytes * collectives,
        dispatch_latency=rates.dispatch_latency * collectives,
        dispatch_bytes=rates.dispatch_bytes * collectives,
        launch=rates.launch * f("launch") * f("cuda_graph", of.cuda_graph),
        host=rates.host * f("host"),
        step=rates.step * f("step") * f("max_running_requests", of.max_running_requests),
    )


def skewed_memory(plan: MemoryPlan, by: Skew, of: Configured) -> MemoryPlan:
    """Distort what is not weights: activations, the engine's overhead, and so the KV cache that is left."""
    if not by.sd:
        return plan
    activations = int(plan.activations * by.factor("activations") * by.factor("activations of", of.max_batched_tokens))
    overhead = int(plan.overhead * by.factor("overhead") * by.factor("overhead of", of.tp * of.pp))
    left = max(0, plan.budget - plan.weights - activations - overhead)
    return replace(
        plan,
        activations=activations,
        overhead=overhead,
        kv_tokens=left // plan.kv_bytes_per_token if plan.kv_bytes_per_token else left,
    )


def start_factor(by: Skew, of: Configured) -> float:
    """By how much loading the model takes longer."""
    return by.factor("start") * by.factor("start of", of.tp * of.pp)
