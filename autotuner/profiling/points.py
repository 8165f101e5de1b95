"""The points of a profile: TTFT at one prompt length, ITL at one batch and context; and what is asked for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from autotuner.core import Source


@dataclass(frozen=True)
class PrefillLoad:
    """`requests` prompts of `prompt_tokens` that the server has never seen, `concurrency` at a time."""

    prompt_tokens: int
    requests: int
    concurrency: int = 1


@dataclass(frozen=True)
class CacheFill:
    """Prompts number 0 to `requests` - 1 of `prompt_tokens`, sent so that the prefix cache holds them."""

    prompt_tokens: int
    requests: int


@dataclass(frozen=True)
class DecodeLoad:
    """`concurrency` requests at once, with the prompts of an earlier `CacheFill` and `output_tokens` each."""

    prompt_tokens: int
    output_tokens: int
    concurrency: int

    @property
    def context_length(self) -> int:
        """Mean context of a request while it decodes, in tokens."""
        return self.prompt_tokens + self.output_tokens // 2


PhaseLoad = PrefillLoad | CacheFill | DecodeLoad


@dataclass(frozen=True)
class PrefillPoint:
    """TTFT in seconds at one prompt length: the median of `samples`, with a 95% interval of the median.

    `rejection` is why the point enters no file, None for a good one. `throughput_per_gpu` is in prompt tokens/s.
    """

    prompt_tokens: int
    ttft: float
    interval: tuple[float, float]
    samples: tuple[float, ...]
    throughput_per_gpu: float
    source: Source
    rejection: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What was asked for: equal for a point that is measured again."""
        return ("prefill", self.prompt_tokens)


@dataclass(frozen=True)
class DecodePoint:
    """ITL in seconds and output tokens/s per GPU with `concurrency` requests of one context length.

    `running` is how many of them ran at once, `cached_share` the share of prompt tokens from the prefix cache (None if
    the server does not tell), `consistency` throughput x ITL / concurrency, 1 where all ran all the time. `kv_usage`
    is the share of the KV cache that the requests hold on average. `rejection` is as for a `PrefillPoint`.
    """

    prompt_tokens: int
    output_tokens: int
    concurrency: int
    kv_usage: float
    itl: float
    interval: tuple[float, float]
    throughput_per_gpu: float
    running: int
    cached_share: float | None
    preemptions: float | None
    consistency: float
    source: Source
    rejection: str | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        """What was asked for: equal for a point that is measured again."""
        return ("decode", self.prompt_tokens, self.concurrency)

    @property
    def context_length(self) -> float:
        """Mean context of a request while it decodes, in tokens."""
        return self.prompt_tokens + self.output_tokens / 2

    @property
    def is_saturated(self) -> bool:
        """Whether the engine ran fewer requests at once than were sent."""
        return self.rejection is not None and self.rejection.startswith(SATURATED)

    @property
    def lacks_cache(self) -> bool:
        """Whether the point was rejected because its prompts were not in the prefix cache."""
        return self.rejection is not None and self.rejection.startswith(NOT_CACHED)


NOT_CACHED, SATURATED = "prompts not cached", "saturated"
"""How rejections begin that say so."""

ProfilePoint = PrefillPoint | DecodePoint


def point_to_json(point: ProfilePoint) -> dict[str, Any]:
    """The point as JSON-serialisable data, with its phase."""
    return {"phase": "prefill" if isinstance(point, PrefillPoint) else "decode", **asdict(point)}


def point_from_json(data: Mapping[str, Any]) -> ProfilePoint:
    """Read what `point_to_json` wrote; KeyError or TypeError for anything else."""
    fields = {name: value for name, value in data.items() if name != "phase"}
    fields["interval"] = tuple(fields["interval"])
    if data["phase"] == "prefill":
        return PrefillPoint(**{**fields, "samples": tuple(fields["samples"])})
    return DecodePoint(**fields)
