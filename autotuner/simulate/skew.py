"""Random factors on the simulated engine's costs, so that it differs from the predictions that guide a search.

Each factor is log-normal with median 1 and drawn from the seed and the name of its cost, so that a name has
the same factor for every candidate and in every process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random

from autotuner.predict.efficiencies import Efficiencies
from autotuner.predict.memory import MemoryPlan


@dataclass(frozen=True, slots=True)
class Skew:
    """`sd` is the standard deviation of each factor's logarithm; with 0 all factors are 1."""

    seed: int = 0
    sd: float = 0.0

    def factor(self, *name: object) -> float:
        """The factor of one cost, or of one value of a parameter."""
        if not self.sd:
            return 1.0
        return math.exp(Random(f"{self.seed} {name}").normalvariate(0.0, self.sd))


@dataclass(frozen=True, slots=True)
class SkewedParameters:
    """A candidate's parameters whose values have their own factors."""

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
    """Multiply the cost of each operator by its factor and by those of the parameter values that affect it."""
    if not skew.sd:
        return efficiencies
    factor = skew.factor
    parallel = factor("parallel", parameters.tp, parameters.pp)
    weights = factor("weights", parameters.weight_dtype) * parallel
    batch = factor("max_batched_tokens", parameters.max_batched_tokens)
    gemms = factor("matrices", parameters.weight_dtype) * parallel * batch
    decode_attention = factor("decode attention") * factor("kv_cache", parameters.kv_dtype)
    decode_attention *= factor("block_size", parameters.block_size)
    collectives = factor("collectives") * factor("collectives of", parameters.tp, parameters.pp)
    prefill_attention = factor("prompt attention") * factor("chunked_prefill", parameters.chunked_prefill)
    return replace(
        efficiencies,
        gemm_compute=efficiencies.gemm_compute * gemms,
        mlp_compute=efficiencies.mlp_compute * gemms,
        attention_proj_memory=efficiencies.attention_proj_memory * weights,
        mlp_memory=efficiencies.mlp_memory * weights,
        expert_compute=efficiencies.expert_compute * gemms * factor("experts"),
        expert_memory=efficiencies.expert_memory * weights * factor("experts"),
        prefill_attention=efficiencies.prefill_attention * prefill_attention,
        prefill_mla=efficiencies.prefill_mla * prefill_attention,
        decode_compute=efficiencies.decode_compute * decode_attention,
        decode_memory=efficiencies.decode_memory * decode_attention,
        state_memory=efficiencies.state_memory * factor("state"),
        elementwise=efficiencies.elementwise * factor("elementwise"),
        permute=efficiencies.permute * factor("permute"),
        allreduce_latency=efficiencies.allreduce_latency * collectives,
        allreduce_bytes=efficiencies.allreduce_bytes * collectives,
        allreduce_oneshot=efficiencies.allreduce_oneshot * collectives,
        dispatch_latency=efficiencies.dispatch_latency * collectives,
        dispatch_bytes=efficiencies.dispatch_bytes * collectives,
        launch=efficiencies.launch * factor("launch") * factor("cuda_graph", parameters.cuda_graph),
        host=efficiencies.host * factor("host"),
        step=efficiencies.step * factor("step") * factor("max_running_requests", parameters.max_running_requests),
    )


def skewed_memory(plan: MemoryPlan, skew: Skew, parameters: SkewedParameters) -> MemoryPlan:
    """Multiply activations and engine overhead by their factors; the KV cache gets the rest of the memory."""
    if not skew.sd:
        return plan
    activations = int(
        plan.activations * skew.factor("activations") * skew.factor("activations of", parameters.max_batched_tokens)
    )
    overhead = int(plan.overhead * skew.factor("overhead") * skew.factor("overhead of", parameters.tp * parameters.pp))
    kv_pool = max(0, plan.budget - plan.weights - activations - overhead)
    return replace(
        plan,
        activations=activations,
        overhead=overhead,
        kv_tokens=kv_pool // plan.kv_bytes_per_token if plan.kv_bytes_per_token else kv_pool,
    )


def start_time_factor(skew: Skew, parameters: SkewedParameters) -> float:
    """The factor on the time to load the model."""
    return skew.factor("start") * skew.factor("start of", parameters.tp * parameters.pp)
