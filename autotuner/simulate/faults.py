"""Faults that the simulated engine injects on demand."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

CRASH_STATUS = 139
"""Exit status that a shell reports after a segmentation fault: 128 + SIGSEGV."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Fault options of an experiment's `simulate.faults`: seconds, request counts, probabilities per request."""

    start_delay: float = 0.0
    crash_after: int | None = None
    hang_after: int | None = None
    rate_limited: float = 0.0
    server_error: float = 0.0
    malformed: float = 0.0
    early_stop: float = 0.0


@dataclass(frozen=True, slots=True)
class RequestFault:
    """The fault of one request: rejected with `status`, or served with the other flaws; by default none.

    `stop_length` is the output length at which generation stops early.
    """

    status: Literal[429, 500] | None = None
    crash: bool = False
    hang: bool = False
    malformed: bool = False
    stop_length: int | None = None


class FaultPlan:
    """Draws the faults of requests in the order of arrival, from one seed."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self._faults = faults
        self._rng = random.Random(seed)
        self._served_requests = 0

    def draw(self, output_tokens: int) -> RequestFault:
        """Draw the fault of the next request, which asks for `output_tokens`."""
        faults, draw = self._faults, self._rng.random
        # Always five draws, so that the probability of one fault does not change the draws of the others.
        rate_limited, server_error, malformed, early_stop, stop_position = (draw() for _ in range(5))
        if rate_limited < faults.rate_limited:
            return RequestFault(status=429)
        if server_error < faults.server_error:
            return RequestFault(status=500)
        self._served_requests += 1
        return RequestFault(
            crash=faults.crash_after is not None and self._served_requests > faults.crash_after,
            hang=faults.hang_after is not None and self._served_requests > faults.hang_after,
            malformed=malformed < faults.malformed,
            stop_length=1 + int(stop_position * max(1, output_tokens - 1)) if early_stop < faults.early_stop else None,
        )
