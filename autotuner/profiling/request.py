"""What an SLA profile is asked for: the model, the lengths, the targets, the GPUs, and how it is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from autotuner.errors import ConfigError, unknown_name_message

EvaluatorName = Literal["measured", "simulated", "predicted"]
RUNTIMES = ("vllm", "sglang", "trtllm", "sim")
EVALUATORS = ("measured", "simulated", "predicted")

CURVE_REACH = 4
"""The longest request of the curves by default, as a multiple of the asked one."""
MIN_PREFILL_POINTS, MIN_DECODE_POINTS = 4, 2
"""Fewer prefill points than 4 crash planners that interpolate TTFT cubically; a surface needs 2 context lengths."""


@dataclass(frozen=True, kw_only=True)
class SlaRequest:
    """The question of one SLA profile; latency targets in seconds, lengths in tokens.

    Workers of `gpus_per_engine` GPUs are tried. `rate` (requests/s) or `concurrency` (requests in flight) is the load
    that replicas are planned for, within `total_gpus`. With `url` the one engine that runs there is profiled: it has
    `max_kv_tokens` of KV cache (None to read it from the server) and `gpus_per_engine[0]` GPUs. No further launch
    starts after `max_seconds`. `prefill_points` prompt lengths and `decode_points` context lengths make the curves,
    up to `max_context_length`. `settings` are overrides of the configuration of every launch, by section.
    """

    runtime: str
    model: str
    gpu: str | None = None
    isl: int = 3000
    osl: int = 150
    ttft: float = 0.2
    itl: float = 0.02
    gpus_per_engine: tuple[int, ...] = (1, 2, 4, 8)
    rate: float | None = None
    concurrency: int | None = None
    total_gpus: int | None = None
    max_seconds: float | None = None
    prefill_points: int = 16
    decode_points: int = 6
    max_context_length: int | None = None
    evaluator: EvaluatorName = "measured"
    url: str | None = None
    max_kv_tokens: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.url is None and self.runtime not in RUNTIMES:
            raise ConfigError(unknown_name_message("runtime", self.runtime, RUNTIMES))
        if self.evaluator not in EVALUATORS:
            raise ConfigError(unknown_name_message("evaluator", self.evaluator, EVALUATORS))
        for name in ("isl", "osl", "total_gpus", "max_context_length", "max_kv_tokens", "concurrency"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{_option(name)} must be at least 1, not {value}.")
        for name in ("ttft", "itl", "rate", "max_seconds"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{_option(name)} must be a number above 0, not {value}.")
        if self.osl < 2:
            raise ConfigError("--osl 1 has no inter-token latency.", remedy="Give an --osl of at least 2.")
        if not self.gpus_per_engine or min(self.gpus_per_engine) < 1:
            raise ConfigError("--gpus-per-engine must be at least 1.", remedy="Write it as 1..8 or 1,2,4.")
        if self.rate is not None and self.concurrency is not None:
            raise ConfigError("--rate and --concurrency cannot be combined.", remedy="Give the load in one way.")
        if self.prefill_points < MIN_PREFILL_POINTS:
            raise ConfigError(
                f"--prefill-points must be at least {MIN_PREFILL_POINTS}, not {self.prefill_points}.",
                why="The planner interpolates TTFT with a cubic curve, and stops with an error on fewer points.",
            )
        if self.decode_points < MIN_DECODE_POINTS:
            raise ConfigError(
                f"--decode-points must be at least {MIN_DECODE_POINTS}, not {self.decode_points}.",
                why="The planner interpolates ITL over KV usage and context, which needs two context lengths.",
            )
        if self.url is not None and self.evaluator != "measured":
            raise ConfigError(f"A server that already runs cannot be {self.evaluator}.", remedy="Leave --url out.")
        if self.max_context_length is not None and self.max_context_length < self.isl + self.osl:
            raise ConfigError(
                f"--max-context-length {self.max_context_length} is below --isl plus --osl, {self.isl + self.osl}.",
                remedy="Raise it, or ask for shorter requests.",
            )

    @property
    def longest_context(self) -> int:
        """The longest request that the curves reach to, where engine and model allow it.

        A planner looks up ITL in 100 cells from 0 to the longest context: curves to the limit of a long-context model
        would leave two or three cells for the requests that were asked about.
        """
        return self.max_context_length or CURVE_REACH * (self.isl + self.osl)

    @property
    def context_length(self) -> int:
        """Mean context of a decoding request: its prompt and half of its output, in tokens."""
        return self.isl + self.osl // 2

    def to_json(self) -> dict[str, Any]:
        """The request as JSON-serialisable data, in seconds and tokens."""
        return {**asdict(self), "gpus_per_engine": list(self.gpus_per_engine)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SlaRequest:
        """Read what `to_json` wrote; ConfigError for another format."""
        names = {item.name for item in fields(cls)}
        unknown = next((name for name in data if name not in names), None)
        if unknown is not None:
            raise ConfigError(unknown_name_message("key of an SLA request", unknown, names))
        try:
            return cls(**{**data, "gpus_per_engine": tuple(data["gpus_per_engine"])})
        except (KeyError, TypeError) as error:
            raise ConfigError("The SLA request is damaged.", why=str(error)) from error


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
