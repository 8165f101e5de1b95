"""What the simulated engine does wrong on demand."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

CRASH_STATUS = 139
"""What a shell reports of a process that died of a segmentation fault."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Seconds, request counts, and probabilities per request, as in the experiment's `simulate.faults`."""

    start_delay: float = 0.0
    crash_after: int | None = None
    hang_after: int | None = None
    rate_limited: float = 0.0
    server_error: float = 0.0
    malformed: float = 0.0
    early_stop: float = 0.0


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to one request: refused with a status, or served with these flaws.

    `stop_at` is the output length at which it stops by itself.
    """

    status: Literal[429, 500] | None = None
    crash: bool = False
    hang: bool = False
    malformed: bool = False
    stop_at: int | None = None


class FaultPlan:
    """Draws each request's fate in the order of arrival, from one seed."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self._faults = faults
        self._random = random.Random(seed)
        self._served = 0

    def next(self, output_tokens: int) -> Fate:
        """Draw the fate of the next request, which asked for `output_tokens`."""
        faults, draw = self._faults, self._random.random
        # Always the same number of draws, so that one fault's rate does not move the others.
        limited, broken, malformed, stops, at = draw(), draw(), draw(), draw(), draw()
        if limited < faults.rate_limited:
            return Fate(status=429)
        if broken < faults.server_error:
            return Fate(status=500)
        self._served += 1
        return Fate(
            crash=faults.crash_after is not None and self._served > faults.crash_after,
            hang=faults.hang_after is not None and self._served > faults.hang_after,
            malformed=malformed < faults.malformed,
            stop_at=1 + int(at * max(1, output_tokens - 1)) if stops < faults.early_stop else None,
        )
