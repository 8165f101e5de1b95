"""Inputs of a prediction: the traffic, and the engine software."""

from __future__ import annotations

from dataclasses import dataclass

from autotuner.errors import ConfigError
from autotuner.predict.layout import Layout
from autotuner.predict.model_on_gpus import ModelOnGpus, model_on_gpus
from autotuner.predict.shape import ModelShape


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

    @property
    def tokens_per_step(self) -> float:
        """Mean tokens of a decode step: one, and the drafts accepted in a row."""
        return sum(self.acceptance**n for n in range(self.draft_tokens + 1))

    def draft_cost(self, shape: ModelShape) -> float:
        """How much longer drafting makes a decode step: a pass of the draft layers for each draft."""
        return 1 + self.draft_tokens * max(1, shape.draft_layers) / shape.layers


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
