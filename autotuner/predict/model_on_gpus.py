"""One model served by one engine on GPUs of one type: its memory, and the seconds of its iterations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from autotuner.errors import ConfigError
from autotuner.predict import memory
from autotuner.predict.calibration import Calibration, bundled_calibration
from autotuner.predict.efficiencies import UNIT_COSTS, CostFactors, Efficiencies, StepParts, step_parts
from autotuner.predict.hardware import GpuSpec, find_gpu
from autotuner.predict.layout import Dtypes, Layout, resolve_dtypes
from autotuner.predict.operators import Operators, Work
from autotuner.predict.parallel_rules import ModelDimensions, ParallelSizes, SizeNames, refusals
from autotuner.predict.queueing import DEFAULT_BATCHED_TOKENS, ClosedLoopLoad, IterationSeconds, closed_loop_load
from autotuner.predict.shape import ModelShape, model_shape

DEFAULT_MEMORY_FRACTION = 0.9
"""vLLM's gpu_memory_utilization in most of its versions, and TensorRT-LLM's free_gpu_memory_fraction."""
CACHED_OUTPUT_SHARE = {"vllm": 0.5}
"""Mean share of its output that a running request has KV cache for.

All where an engine reserves it, half on vLLM, where it grows. With all, the mean error of TTFT of held-out models is
40.1%, not 39.2% (benchmarks/predict/errors.py).
"""
MIN_CAPABILITY = {"fp8": 89}
"""Least compute capability for a weight type (fp8 tensor cores: Ada); engines dequantise the other types instead."""

LAYOUT_NAMES = SizeNames("tp", "pp", "ep", "dp")


class IterationWork(NamedTuple):
    """Work of each kind of iteration in `IterationSeconds`; `batched_prefill` is of `prompts` prompts."""

    decode: Work
    single_prefill: Work
    mixed: Work
    batched_prefill: Work
    prompts: float


@dataclass(frozen=True)
class ModelOnGpus:
    """A model, a GPU type, a layout on such GPUs, dtypes, and an engine.

    `max_running_requests` bounds the requests that one replica runs at once, None where only the KV cache does.
    `recv_interval` is in how many steps SGLang looks for new requests once, the simulated engine has no front end,
    which would add to TTFT. `costs` multiply the fitted costs of its operators.
    """

    shape: ModelShape
    gpu: GpuSpec
    layout: Layout
    dtypes: Dtypes
    engine: str = ""
    version: str | None = None
    memory_fraction: float = DEFAULT_MEMORY_FRACTION
    max_batched_tokens: int = DEFAULT_BATCHED_TOKENS
    max_running_requests: int | None = None
    cuda_graph: bool = True
    recv_interval: int = 1
    has_front_end: bool = True
    costs: CostFactors = UNIT_COSTS

    def check(self) -> None:
        """Raise ConfigError for a layout or types that no engine runs."""
        shape, layout, name = self.shape, self.layout, self.shape.name
        for field in ("tp", "pp", "dp"):
            if getattr(layout, field) < 1:
                raise ConfigError(f"{field} must be at least 1, not {getattr(layout, field)}.")
        sizes = ParallelSizes(layout.tp, layout.pp, layout.ep_size, expert_gpus=layout.gpus_per_stage)
        for reason in refusals(ModelDimensions.from_shape(shape), self.engine, sizes, LAYOUT_NAMES):
            raise ConfigError(f"'{name}' cannot run on this layout.", why=f"{reason}.")
        for dtype in (self.dtypes.mlp, self.dtypes.expert, self.dtypes.attention_proj):
            if (self.gpu.compute_capability or 999) < MIN_CAPABILITY.get(dtype, 0):
                raise ConfigError(
                    f"GPU '{self.gpu.name}' does not compute in {dtype}.", remedy="Give another dtype, or a newer GPU."
                )

    @cached_property
    def memory_plan(self) -> memory.MemoryPlan:
        """The memory plan of the fullest GPU."""
        return memory.plan_memory(
            self.shape,
            self.gpu,
            fraction=self.memory_fraction,
            dtypes=self.dtypes,
            layout=self.layout,
            max_batched_tokens=self.max_batched_tokens,
            max_running_requests=self.max_running_requests or memory.DEFAULT_RUNNING_REQUESTS,
        )

    @cached_property
    def operators(self) -> Operators:
        return Operators(self.shape, self.gpu, self.layout, self.dtypes)

    @cached_property
    def bundled_efficiencies(self) -> Efficiencies:
        return self.efficiencies(bundled_calibration())

    def efficiencies(self, calibration: Calibration) -> Efficiencies:
        """Inverse efficiencies of its operators, times its cost factors."""
        return self.costs.apply_to(
            calibration.efficiencies(self.shape, self.gpu, self.layout, self.dtypes, self.engine, self.version)
        )

    def replica_load(self, isl: float, osl: float, concurrency: float) -> ClosedLoopLoad:
        """The closed loop on one replica at `concurrency` requests in flight over all replicas."""
        cached_tokens = isl + CACHED_OUTPUT_SHARE.get(self.engine, 1.0) * osl
        capacity = min(self.memory_plan.sequence_capacity(cached_tokens), self.max_running_requests or math.inf)
        limit = self.max_batched_tokens if self.engine != "sglang" else math.inf
        return closed_loop_load(isl, osl, concurrency, dp=self.layout.dp, capacity=capacity, prompt_token_limit=limit)

    def iteration_work(
        self, load: ClosedLoopLoad, *, cached_tokens: float = 0.0, queries: float = 1.0
    ) -> IterationWork:
        """Work of each kind of iteration that the closed loop consists of.

        `cached_tokens` of each prompt are in the prefix cache, `queries` tokens verified per sequence and iteration.
        """
        work = self.operators.work
        batch = max(1.0, load.batch / self.layout.pp)
        mean_context = load.isl + load.osl / 2
        new_tokens = load.isl - cached_tokens
        prompt = (new_tokens, cached_tokens)
        prompts = int(max(1.0, min(load.batch, self.max_batched_tokens / max(1.0, new_tokens))))
        return IterationWork(
            decode=work([], batch, mean_context, queries=queries),
            single_prefill=work([prompt], 0, 0, other_replica_tokens=batch),
            mixed=work([prompt], max(0.0, batch - 1), mean_context, other_replica_tokens=batch, queries=queries),
            batched_prefill=work([prompt] * prompts, 0, 0),
            prompts=float(prompts),
        )


def iteration_seconds(
    work: IterationWork, efficiencies: Efficiencies, *, cuda_graph: bool = True
) -> tuple[IterationSeconds, StepParts, StepParts]:
    """Seconds of each kind of iteration, and by operator those of the decode and of the single-prompt prefill."""
    decode = step_parts(work.decode, efficiencies, eager=not cuda_graph)
    prefill = step_parts(work.single_prefill, efficiencies, eager=True)
    mixed = step_parts(work.mixed, efficiencies, eager=True)
    batched = step_parts(work.batched_prefill, efficiencies, eager=True)
    return IterationSeconds(decode.total, prefill.total, mixed.total, batched.total, work.prompts), decode, prefill


@lru_cache(maxsize=1024)
def model_on_gpus(
    model: str,
    gpu: str,
    layout: Layout,
    gemm_dtype: str | None = None,
    moe_dtype: str | None = None,
    kv_dtype: str | None = None,
    engine: str = "",
    version: str | None = None,
    memory_fraction: float = DEFAULT_MEMORY_FRACTION,
) -> ModelOnGpus:
    """A checked `ModelOnGpus` from the names of a model and a GPU; equal arguments give the same object.

    Raises ConfigError for unknown names and for what no engine runs.
    """
    shape, spec = model_shape(model), find_gpu(gpu)
    dtypes = resolve_dtypes(shape, gemm_dtype=gemm_dtype, moe_dtype=moe_dtype, kv_dtype=kv_dtype)
    deployment = ModelOnGpus(shape, spec, layout, dtypes, engine, version, memory_fraction)
    deployment.check()
    return deployment
