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
class RequestFault:
    """What happens to one request: refused with a status, or served with these flaws.

    `stop_at` is the output length at which it stops by itself.
    """

    status: Literal[429, 500] | None = None
    crash: bool = False
    hang: bool = False
    malformed: bool = False
    stop_length: int | None = None


class FaultPlan:
    """Draws each request's fate in the order of arrival, from one seed."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self._faults = faults
        self._rng = random.Random(seed)
        self._served_requests = 0

    def draw(self, output_tokens: int) -> RequestFault:
        """Draw the fate of the next request, which asked for `output_tokens`."""
        faults, draw = self._faults, self._rng.random
        # Always the same number of draws, so that one fault's rate does not move the others.
        limited, broken, malformed, stops, at = draw(), draw(), draw(), draw(), draw()
        if limited < faults.rate_limited:
            return RequestFault(status=429)
        if broken < faults.server_error:
            return RequestFault(status=500)
        self._served_requests += 1
        return RequestFault(
            crash=faults.crash_after is not None and self._served_requests > faults.crash_after,
            hang=faults.hang_after is not None and self._served_requests > faults.hang_after,
            malformed=malformed < faults.malformed,
            stop_length=1 + int(at * max(1, output_tokens - 1)) if stops < faults.early_stop else None,
        )
