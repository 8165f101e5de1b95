"""How a load generator drives a closed loop: what a measured TTFT depends on beside the server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from autotuner.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Harness:
    """A closed loop's prompts and which of them are counted.

    Lengths are uniform between `length_ratio` of the nominal one and the nominal one. All requests in flight are sent
    at once at the start; each is followed by others, `waves` of them in all, of which the first `warmup_waves` are not
    counted. `waves` is prompts per level over the concurrency.
    """

    name: str = "autotune"
    length_ratio: float = 1.0
    waves: float = 10.0
    warmup_waves: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.length_ratio <= 1:
            raise ConfigError(f"length_ratio must be above 0 and at most 1, not {self.length_ratio:g}.")
        if not self.waves > 0:
            raise ConfigError(f"The prompts of a level must be more than 0, not {self.waves:g} x the concurrency.")

    @property
    def mean_length_share(self) -> float:
        """Mean length of a request as a share of the nominal one."""
        return (1 + self.length_ratio) / 2


AUTOTUNE = Harness("autotune", 1.0, 5.0, 1)
"""`autotune run` and `autotune bench`: fixed lengths where the scenario has them, and a warm-up that keeps the load
up, so that no initial burst is counted."""
INFERENCEX = Harness("inferencex", 0.8, 10.0, 0)
"""InferenceX: lengths of 80 to 100%, 10 prompts per request in flight, all sent at once after a warm-up that ends."""
FIXED = Harness("nvidia_fixed", 1.0, 10.0, 0)
"""Fixed lengths; the number of prompts is not published."""
HARNESSES = {harness.name: harness for harness in (AUTOTUNE, INFERENCEX, FIXED)}


def harness_from_row(row: Mapping[str, str], concurrency: int) -> Harness:
    """The harness of a table's row, from its columns harness, length_ratio and prompts_per_level; InferenceX's without.

    `prompts_per_level` is a number of prompts or `10 x concurrency`. Raises ConfigError for what cannot be read.
    """
    name = (row.get("harness") or "").strip().lower()
    defaults = HARNESSES.get(name, INFERENCEX)
    ratio, waves = defaults.length_ratio, defaults.waves
    text = (row.get("length_ratio") or "").strip()
    if text and text.lower() != "nan":
        try:
            ratio = float(text)
        except ValueError:
            raise ConfigError(f"length_ratio is '{text[:40]}', not a number.") from None
    text = (row.get("prompts_per_level") or "").strip().lower()
    if match := re.match(r"(\d+(?:\.\d+)?)\s*x\s*concurrency", text):
        waves = float(match[1])
    elif re.fullmatch(r"\d+(\.\d+)?", text):
        waves = float(text) / concurrency
    return Harness(name or defaults.name, ratio, waves, defaults.warmup_waves)


class ServerFlags(NamedTuple):
    """What a harness sets on the server: prompt tokens per step at most, and SGLang's scheduler-recv-interval."""

    tokens_per_step: int
    recv_interval: int = 1


def inferencex_flags(engine: str, model: str, *, is_blackwell: bool, in_flight: int, isl: int) -> ServerFlags:
    """The flags of InferenceX's scripts, 2025-10 to 2026-08; of a model that they do not have, those of the others."""
    name = model.lower()
    if engine == "trtllm":
        if "deepseek" in name:
            return ServerFlags(max(8192, in_flight + isl + 64))
        return ServerFlags(20000 if "gpt-oss" in name else 16384)
    if engine != "sglang":
        return ServerFlags(8192)
    tokens = 16384 if "qwen" in name else 32768
    if not is_blackwell or "glm" in name:
        return ServerFlags(tokens)
    return ServerFlags(tokens, 30 if in_flight >= (5 if "qwen" in name else 16) else 10)
