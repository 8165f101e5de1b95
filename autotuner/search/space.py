"""The candidates a run may choose from: every combination of values that can work."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from autotuner.core import Candidate, Value

ENUMERATED_AT_MOST = 20_000
"""Larger spaces are thinned by a seeded sample, so that planning stays instant."""


def never(candidate: Candidate) -> str | None:
    """Refuse nothing."""
    return None


@dataclass(frozen=True)
class Space:
    """A runtime and the values each of its parameters may take.

    `refuse` gives the reason a combination cannot run, or None; refused combinations are never
    asked for. `total` counts all combinations before that.
    """

    runtime: str
    parameters: Mapping[str, Sequence[Value]]
    refuse: Callable[[Candidate], str | None] = never
    candidates: tuple[Candidate, ...] = field(init=False)
    refused: tuple[tuple[Candidate, str], ...] = field(init=False)

    def __post_init__(self) -> None:
        kept: list[Candidate] = []
        refused: list[tuple[Candidate, str]] = []
        for candidate in dict.fromkeys(self._combinations()):
            reason = self.refuse(candidate)
            if reason is None:
                kept.append(candidate)
            else:
                refused.append((candidate, reason))
        object.__setattr__(self, "candidates", tuple(kept))
        object.__setattr__(self, "refused", tuple(refused))

    @property
    def total(self) -> int:
        """How many combinations the values span."""
        return math.prod(len(values) for values in self.parameters.values())

    def _combinations(self) -> list[Candidate]:
        axes = list(self.parameters.values())
        if self.total <= ENUMERATED_AT_MOST:
            picks: list[tuple[Value, ...]] = list(itertools.product(*axes))
        else:
            draw = random.Random(0)
            picks = [tuple(draw.choice(axis) for axis in axes) for _ in range(ENUMERATED_AT_MOST)]
        return [Candidate(self.runtime, dict(zip(self.parameters, pick, strict=True))) for pick in picks]
