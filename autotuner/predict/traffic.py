"""Inputs of a prediction: the traffic, the engine software, and the latency target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from autotuner.errors import ConfigError
from autotuner.predict.layout import Layout
from autotuner.predict.model_on_gpus import ModelOnGpus, model_on_gpus


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests of `isl` prompt and `osl` output tokens.

    `prefix_hit` is the share of prompt tokens that hit the prefix cache, `draft_tokens` the tokens
    a draft model proposes per step, `acceptance` the probability that each is accepted.
    """

    isl: int
    osl: int
    prefix_hit: float = 0.0
    draft_tokens: int = 0
    acceptance: float = 0.7

    def __post_init__(self) -> None:
        for name, tokens in (("isl", self.isl), ("osl", self.osl)):
            if not tokens >= 1:
                raise ConfigError(f"{name} must be at least 1, not {tokens}.")
        if not 0 <= self.prefix_hit < 1:
            raise ConfigError(f"The prefix hit rate must be at least 0 and below 1, not {self.prefix_hit}.")
        if self.draft_tokens < 0 or not 0 <= self.acceptance <= 1:
            raise ConfigError(
                f"{self.draft_tokens} draft tokens with an acceptance of {self.acceptance} cannot be.",
                remedy="The first is 0 or more, the second between 0 and 1.",
            )


@dataclass(frozen=True, slots=True)
class Software:
    """Engine and dtypes; None is any version, the checkpoint's weight dtype, a bf16 KV cache."""

    engine: str = "vllm"
    version: str | None = None
    dtype: str | None = None
    kv_dtype: str | None = None

    def deploy(self, model: str, gpu: str, layout: Layout) -> ModelOnGpus:
        """The model on GPUs under this software; raises ConfigError for what no engine runs."""
        return model_on_gpus(model, gpu, layout, self.dtype, self.dtype, self.kv_dtype, self.engine, self.version)


class MeanLatencies(Protocol):
    """Anything with mean TTFT and mean TPOT in seconds."""

    @property
    def ttft(self) -> float: ...

    @property
    def tpot(self) -> float: ...


@dataclass(frozen=True, slots=True)
class LatencyTarget:
    """Upper bounds on mean TTFT and mean TPOT in seconds; None is no target."""

    ttft: float | None = None
    tpot: float | None = None

    def largest_ratio(self, result: MeanLatencies) -> tuple[float, str]:
        """The largest ratio of a latency to its target, and which latency; 0 without a target."""
        ratios = [
            (time / target, name)
            for name, time, target in (("ttft", result.ttft, self.ttft), ("tpot", result.tpot, self.tpot))
            if target is not None
        ]
        return max(ratios, default=(0.0, ""))

    @property
    def is_set(self) -> bool:
        return self.ttft is not None or self.tpot is not None

    def __str__(self) -> str:
        terms = (("ttft", self.ttft), ("tpot", self.tpot))
        return ",".join(f"{name}={value:g}" for name, value in terms if value is not None)
