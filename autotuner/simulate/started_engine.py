"""Builds the simulated engine from settings: memory plan, scheduler limits and iteration times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from autotuner.errors import ConfigError
from autotuner.predict import memory
from autotuner.predict.calibration import bundled_calibration
from autotuner.predict.layout import Layout, resolve_dtypes
from autotuner.predict.parallel_rules import ModelDimensions, ParallelSizes, SizeNames, refusals
from autotuner.predict.shape import ModelShape, model_shape
from autotuner.predict.steps import StepTimes
from autotuner.simulate.scheduler import Policy, Scheduler, SchedulerLimits
from autotuner.simulate.settings import SimulationSettings
from autotuner.simulate.skew import SkewedParameters, skewed_efficiencies, skewed_memory, start_time_factor

DEFAULT_BATCHED_TOKENS = 8192
"""The default of --max-batched-tokens."""


START_FAILED_STATUS = 1
"""Exit status of the server for a StartError."""


class StartError(Exception):
    """The engine cannot start with these settings; the message is what it logs."""


class IterationTimes(Protocol):
    """Predicts the duration of iterations, in seconds."""

    def step(self, prefill: Sequence[tuple[int, int]], decodes: int, decode_context: int) -> float:
        """Duration of an iteration; arguments as of `scheduler.StepTime`."""

    def decode_time(self, decodes: int) -> Callable[[int], float]:
        """Return the duration of a decode-only iteration as a function of the cached tokens in total."""


@dataclass(frozen=True)
class FixedIterationTimes:
    """Iterations that all take `seconds`."""

    seconds: float

    def step(self, prefill: Sequence[tuple[int, int]], decodes: int, decode_context: int) -> float:
        return self.seconds

    def decode_time(self, decodes: int) -> Callable[[int], float]:
        return lambda decode_context: self.seconds


@dataclass(frozen=True)
class StartedEngine:
    """A simulated engine with its model loaded; `start_seconds` is how long it took to start."""

    shape: ModelShape
    memory_plan: memory.MemoryPlan
    limits: SchedulerLimits
    iteration_times: IterationTimes
    start_seconds: float

    @property
    def kv_tokens(self) -> int:
        """Capacity of the KV cache in tokens."""
        return self.limits.num_blocks * self.limits.block_size

    def create_scheduler(self) -> Scheduler:
        return Scheduler(self.limits, self.iteration_times.step)


def start_engine(settings: SimulationSettings) -> StartedEngine:
    """Plan memory and limits as an engine does at start; StartError if the model does not fit."""
    try:
        shape = model_shape(settings.model)
    except ConfigError as error:
        raise StartError(f"Cannot load model '{settings.model}': {error}") from error
    _check_parallelism(shape, settings)
    requested_length = _requested_length(shape, settings)
    max_batched_tokens = settings.max_batched_tokens or _default_batched_tokens(settings, requested_length)
    parameters = _skewed_parameters(settings, max_batched_tokens)
    predicted_plan = memory.plan_memory(
        shape,
        settings.gpu,
        fraction=settings.mem_fraction_static,
        tp=settings.tp_size,
        pp=settings.pp_size,
        weight_dtype=settings.quantization,
        kv_dtype=settings.kv_cache_dtype,
        max_batched_tokens=max_batched_tokens,
        max_running_requests=settings.max_running_requests,
    )
    memory_plan = skewed_memory(predicted_plan, settings.skew, parameters)
    num_blocks = memory_plan.kv_tokens // settings.kv_block_size
    if not num_blocks:
        raise StartError(f"Out of memory: {memory_plan.shortage}")
    limits = SchedulerLimits(
        max_running_requests=settings.max_running_requests,
        max_batched_tokens=max_batched_tokens,
        max_model_len=_max_model_len(
            settings, requested_length, num_blocks * settings.kv_block_size, max_batched_tokens
        ),
        block_size=settings.kv_block_size,
        num_blocks=num_blocks,
        chunked_prefill=settings.enable_chunked_prefill,
        prefix_caching=settings.prefix_caching,
        policy=cast("Policy", settings.schedule_policy),
    )
    start_seconds = settings.load_seconds * start_time_factor(settings.skew, parameters) + settings.faults.start_delay
    return StartedEngine(shape, memory_plan, limits, _iteration_times(shape, settings, parameters), start_seconds)


def _skewed_parameters(settings: SimulationSettings, max_batched_tokens: int) -> SkewedParameters:
    return SkewedParameters(
        tp=settings.tp_size,
        pp=settings.pp_size,
        weight_dtype=settings.quantization,
        kv_dtype=settings.kv_cache_dtype,
        block_size=settings.kv_block_size,
        max_batched_tokens=max_batched_tokens,
        max_running_requests=settings.max_running_requests,
        chunked_prefill=settings.enable_chunked_prefill,
        cuda_graph=settings.cuda_graph,
    )


def _check_parallelism(shape: ModelShape, settings: SimulationSettings) -> None:
    sizes = ParallelSizes(settings.tp_size, settings.pp_size)
    for reason in refusals(ModelDimensions.from_shape(shape), "sim", sizes, SizeNames("--tp-size", "--pp-size")):
        raise StartError(reason)


def _requested_length(shape: ModelShape, settings: SimulationSettings) -> int:
    length = settings.max_model_len or shape.max_model_len
    if length > shape.max_model_len:
        raise StartError(f"--max-model-len {length} is above the model's {shape.max_model_len} positions")
    return length


def _default_batched_tokens(settings: SimulationSettings, requested_length: int) -> int:
    # Without chunked prefill a whole prompt must fit in one iteration. For the model's full length that applies
    # only if it was requested, because the activations of so many tokens would displace the KV cache.
    if settings.enable_chunked_prefill or settings.max_model_len is None:
        return DEFAULT_BATCHED_TOKENS
    return max(DEFAULT_BATCHED_TOKENS, requested_length)


def _max_model_len(settings: SimulationSettings, requested_length: int, kv_tokens: int, max_batched_tokens: int) -> int:
    """Shorten an unspecified length to what fits; StartError for a specified one that does not fit."""
    max_prompt = requested_length if settings.enable_chunked_prefill else max_batched_tokens
    if settings.max_model_len is None:
        return min(requested_length, kv_tokens, max_prompt)
    if requested_length > kv_tokens:
        raise StartError(
            f"Out of memory: the KV cache holds {kv_tokens} tokens, "
            f"--max-model-len asks for {requested_length} in one request"
        )
    if requested_length > max_prompt:
        raise StartError(
            f"--max-batched-tokens {max_batched_tokens} is below --max-model-len {requested_length}, "
            "and without chunked prefill a whole prompt must fit in one iteration"
        )
    return requested_length


def _iteration_times(shape: ModelShape, settings: SimulationSettings, parameters: SkewedParameters) -> IterationTimes:
    if settings.fixed_step_ms is not None:
        return FixedIterationTimes(settings.fixed_step_ms / 1000)
    dtypes = resolve_dtypes(shape, gemm_dtype=settings.quantization, kv_dtype=settings.kv_cache_dtype)
    layout = Layout(tp=settings.tp_size, pp=settings.pp_size)
    calibration = bundled_calibration()
    efficiencies = calibration.efficiencies(shape, settings.gpu, layout, dtypes, settings.calibration_engine)
    return StepTimes(
        shape,
        settings.gpu,
        tp=settings.tp_size,
        pp=settings.pp_size,
        weight_dtype=settings.quantization,
        kv_dtype=settings.kv_cache_dtype,
        cuda_graph=settings.cuda_graph,
        efficiencies=skewed_efficiencies(efficiencies, settings.skew, parameters),
    )
