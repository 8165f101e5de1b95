"""From settings to a scheduler: what fits on the simulated GPUs, or why nothing does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from autotuner.errors import ConfigError
from autotuner.predict import memory
from autotuner.predict.calibration import calibration
from autotuner.predict.layout import Layout, dtypes_of
from autotuner.predict.shape import ModelShape, model_shape
from autotuner.predict.steps import StepTimes
from autotuner.simulate.scheduler import Limits, Policy, Scheduler
from autotuner.simulate.settings import Settings
from autotuner.simulate.skew import Configured, skewed_memory, skewed_rates, start_factor

BATCHED_TOKENS = 8192


class StartError(Exception):
    """The engine cannot start as asked; the text is what it logs."""


class IterationTimes(Protocol):
    """How long iterations take."""

    def step(self, prefill: Sequence[tuple[int, int]], decodes: int, decode_context: int) -> float:
        """Seconds of one iteration; see `scheduler.StepTime`."""

    def decoding(self, decodes: int) -> Callable[[int], float]:
        """Seconds of one without prompts, by the tokens in the cache."""


@dataclass(frozen=True)
class FixedTimes:
    """Every iteration takes the same time."""

    seconds: float

    def step(self, prefill: Sequence[tuple[int, int]], decodes: int, decode_context: int) -> float:
        """Seconds of any iteration."""
        return self.seconds

    def decoding(self, decodes: int) -> Callable[[int], float]:
        """Seconds of any iteration."""
        return lambda context: self.seconds


@dataclass(frozen=True)
class World:
    """A model on simulated GPUs: its shape, its memory, how long iterations take, and what bounds them.

    `start_seconds` is how long an engine takes to load it.
    """

    shape: ModelShape
    memory: memory.MemoryPlan
    limits: Limits
    times: IterationTimes
    start_seconds: float

    @property
    def kv_tokens(self) -> int:
        """Tokens the KV cache holds."""
        return self.limits.blocks * self.limits.block_size

    def scheduler(self) -> Scheduler:
        """A new scheduler for it."""
        return Scheduler(self.limits, self.times.step)


def build(settings: Settings) -> World:
    """Set the model up as an engine does at start; StartError when it does not fit."""
    try:
        shape = model_shape(settings.model)
    except ConfigError as error:
        raise StartError(f"Cannot load model '{settings.model}': {error}") from error
    _check_parallelism(shape, settings)
    asked_len = _asked_length(shape, settings)
    batched = settings.max_batched_tokens or _default_batched_tokens(settings, asked_len)
    configured = _configured(settings, batched)
    whole = memory.plan(
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
    limits = Limits(
        max_running_requests=settings.max_running_requests,
        max_batched_tokens=batched,
        max_model_len=_length(settings, asked_len, blocks * settings.block_size, batched),
        block_size=settings.block_size,
        blocks=blocks,
        chunked_prefill=settings.chunked_prefill,
        prefix_caching=settings.prefix_caching,
        policy=cast("Policy", settings.policy),
    )
    seconds = settings.load_seconds * start_factor(settings.skew, configured) + settings.faults.start_delay
    return World(shape, plan, limits, _times(shape, settings, configured), seconds)


def _configured(settings: Settings, batched: int) -> Configured:
    return Configured(
        tp=settings.tp,
        pp=settings.pp,
        weight_dtype=settings.weight_dtype,
        kv_dtype=settings.kv_dtype,
        block_size=settings.block_size,
        max_batched_tokens=batched,
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


def _asked_length(shape: ModelShape, settings: Settings) -> int:
    asked = settings.max_model_len or shape.max_model_len
    if asked > shape.max_model_len:
        raise StartError(f"--max-model-len {asked} is above the model's {shape.max_model_len} positions")
    return asked


def _default_batched_tokens(settings: Settings, asked_len: int) -> int:
    # A whole prompt must fit in one iteration; the model's full length only when it was asked for,
    # for its activations would take the memory of the KV cache.
    if settings.chunked_prefill or settings.max_model_len is None:
        return BATCHED_TOKENS
    return max(BATCHED_TOKENS, asked_len)


def _length(settings: Settings, asked_len: int, kv_tokens: int, batched: int) -> int:
    """Shorten an unspecified length to what fits; refuse a specified one that does not."""
    whole_prompt = asked_len if settings.chunked_prefill else batched
    if settings.max_model_len is None:
        return min(asked_len, kv_tokens, whole_prompt)
    if asked_len > kv_tokens:
        raise StartError(
            f"Out of memory: the KV cache holds {kv_tokens} tokens, --max-model-len asks for {asked_len} in one request"
        )
    if asked_len > whole_prompt:
        raise StartError(
            f"--max-batched-tokens {batched} is below --max-model-len {asked_len}, "
            "and without chunked prefill a whole prompt must fit in one iteration"
        )
    return asked_len


def _times(shape: ModelShape, settings: Settings, configured: Configured) -> IterationTimes:
    if settings.fixed_step is not None:
        return FixedTimes(settings.fixed_step)
    dtypes = dtypes_of(shape, settings.gpu, gemm=settings.weight_dtype, kv=settings.kv_dtype)
    layout = Layout(tp=settings.tp, pp=settings.pp)
    rates = calibration().rates(shape, settings.gpu, layout, dtypes, settings.engine)
    return StepTimes(
        shape,
        settings.gpu,
        tp=settings.tp,
        pp=settings.pp,
        weight_dtype=settings.weight_dtype,
        kv_dtype=settings.kv_dtype,
        cuda_graph=settings.cuda_graph,
        rates=skewed_rates(rates, settings.skew, configured),
    )
