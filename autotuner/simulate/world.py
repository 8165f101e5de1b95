"""From settings to a scheduler: what fits on the simulated GPUs, or why nothing does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from autotuner.errors import ConfigError
from autotuner.predict import memory
from autotuner.predict.calibration import bundled_calibration
from autotuner.predict.layout import Layout, resolve_dtypes
from autotuner.predict.shape import ModelShape, model_shape
from autotuner.predict.steps import StepTimes
from autotuner.simulate.scheduler import Policy, Scheduler, SchedulerLimits
from autotuner.simulate.settings import Settings
from autotuner.simulate.skew import SkewedParameters, skewed_efficiencies, skewed_memory, start_time_factor

DEFAULT_BATCHED_TOKENS = 8192


class StartError(Exception):
    """The engine cannot start as asked; the text is what it logs."""


class IterationTimes(Protocol):
    """How long iterations take."""

    def step(self, prefill: Sequence[tuple[int, int]], decodes: int, decode_context: int) -> float:
        """Seconds of one iteration; see `scheduler.StepTime`."""

    def decode_time(self, decodes: int) -> Callable[[int], float]:
        """Seconds of one without prompts, by the tokens in the cache."""


@dataclass(frozen=True)
class FixedIterationTimes:
    """Every iteration takes the same time."""

    seconds: float

    def step(self, prefill: Sequence[tuple[int, int]], decodes: int, decode_context: int) -> float:
        """Seconds of any iteration."""
        return self.seconds

    def decode_time(self, decodes: int) -> Callable[[int], float]:
        """Seconds of any iteration."""
        return lambda context: self.seconds


@dataclass(frozen=True)
class World:
    """A model on simulated GPUs: its shape, its memory, how long iterations take, and what bounds them.

    `start_seconds` is how long an engine takes to load it.
    """

    shape: ModelShape
    memory_plan: memory.MemoryPlan
    limits: SchedulerLimits
    iteration_times: IterationTimes
    start_seconds: float

    @property
    def kv_tokens(self) -> int:
        """Tokens the KV cache holds."""
        return self.limits.num_blocks * self.limits.block_size

    def create_scheduler(self) -> Scheduler:
        """A new scheduler for it."""
        return Scheduler(self.limits, self.iteration_times.step)


def build_world(settings: Settings) -> World:
    """Set the model up as an engine does at start; StartError when it does not fit."""
    try:
        shape = model_shape(settings.model)
    except ConfigError as error:
        raise StartError(f"Cannot load model '{settings.model}': {error}") from error
    _check_parallelism(shape, settings)
    asked_len = _requested_length(shape, settings)
    batched = settings.max_batched_tokens or _default_batched_tokens(settings, asked_len)
    configured = _skewed_parameters(settings, batched)
    whole = memory.plan_memory(
        shape,
        settings.gpu,
        fraction=settings.memory_fraction,
        tp=settings.tp,
        pp=settings.pp,
        weight_dtype=settings.weight_dtype,
        kv_dtype=settings.kv_dtype,
        max_batched_tokens=batched,
        max_running_requests=settings.max_running_requests,
    )
    plan = skewed_memory(whole, settings.skew, configured)
    blocks = plan.kv_tokens // settings.block_size
    if not blocks:
        raise StartError(f"Out of memory: {plan.shortage}")
    limits = SchedulerLimits(
        max_running_requests=settings.max_running_requests,
        max_batched_tokens=batched,
        max_model_len=_max_model_len(settings, asked_len, blocks * settings.block_size, batched),
        block_size=settings.block_size,
        num_blocks=blocks,
        chunked_prefill=settings.chunked_prefill,
        prefix_caching=settings.prefix_caching,
        policy=cast("Policy", settings.policy),
    )
    seconds = settings.load_seconds * start_time_factor(settings.skew, configured) + settings.faults.start_delay
    return World(shape, plan, limits, _iteration_times(shape, settings, configured), seconds)


def _skewed_parameters(settings: Settings, max_batched_tokens: int) -> SkewedParameters:
    return SkewedParameters(
        tp=settings.tp,
        pp=settings.pp,
        weight_dtype=settings.weight_dtype,
        kv_dtype=settings.kv_dtype,
        block_size=settings.block_size,
        max_batched_tokens=max_batched_tokens,
        max_running_requests=settings.max_running_requests,
        chunked_prefill=settings.chunked_prefill,
        cuda_graph=settings.cuda_graph,
    )


def _check_parallelism(shape: ModelShape, settings: Settings) -> None:
    if shape.heads % settings.tp:
        raise StartError(f"{shape.heads} attention heads are not divisible by --tp-size {settings.tp}")
    if shape.kv_heads % settings.tp and settings.tp % shape.kv_heads:
        raise StartError(f"{shape.kv_heads} key-value heads and --tp-size {settings.tp} do not divide one another")
    if settings.pp > shape.layers:
        raise StartError(f"{shape.layers} layers are fewer than --pp-size {settings.pp}")


def _requested_length(shape: ModelShape, settings: Settings) -> int:
    asked = settings.max_model_len or shape.max_model_len
    if asked > shape.max_model_len:
        raise StartError(f"--max-model-len {asked} is above the model's {shape.max_model_len} positions")
    return asked


def _default_batched_tokens(settings: Settings, requested_length: int) -> int:
    # A whole prompt must fit in one iteration; the model's full length only when it was asked for,
    # for its activations would take the memory of the KV cache.
    if settings.chunked_prefill or settings.max_model_len is None:
        return DEFAULT_BATCHED_TOKENS
    return max(DEFAULT_BATCHED_TOKENS, requested_length)


def _max_model_len(settings: Settings, requested_length: int, kv_tokens: int, max_batched_tokens: int) -> int:
    """Shorten an unspecified length to what fits; refuse a specified one that does not."""
    whole_prompt = requested_length if settings.chunked_prefill else max_batched_tokens
    if settings.max_model_len is None:
        return min(requested_length, kv_tokens, whole_prompt)
    if requested_length > kv_tokens:
        raise StartError(
            f"Out of memory: the KV cache holds {kv_tokens} tokens, --max-model-len asks for {requested_length} in one request"
        )
    if requested_length > whole_prompt:
        raise StartError(
            f"--max-batched-tokens {max_batched_tokens} is below --max-model-len {requested_length}, "
            "and without chunked prefill a whole prompt must fit in one iteration"
        )
    return requested_length


def _iteration_times(shape: ModelShape, settings: Settings, parameters: SkewedParameters) -> IterationTimes:
    if settings.fixed_step_seconds is not None:
        return FixedIterationTimes(settings.fixed_step_seconds)
    dtypes = resolve_dtypes(shape, settings.gpu, gemm_dtype=settings.weight_dtype, kv_dtype=settings.kv_dtype)
    layout = Layout(tp=settings.tp, pp=settings.pp)
    rates = bundled_calibration().efficiencies(shape, settings.gpu, layout, dtypes, settings.calibration_engine)
    return StepTimes(
        shape,
        settings.gpu,
        tp=settings.tp,
        pp=settings.pp,
        weight_dtype=settings.weight_dtype,
        kv_dtype=settings.kv_dtype,
        cuda_graph=settings.cuda_graph,
        efficiencies=skewed_efficiencies(rates, settings.skew, parameters),
    )
