"""The clock of trials: Unix seconds whose differences are true durations, even when the system's clock is set."""

from __future__ import annotations

import time

_OFFSET_SECONDS = time.time() - time.monotonic()
"""Of the monotonic clock from Unix time, when this process started."""


def steady_unix_time() -> float:
    """Unix seconds as this process's start and the monotonic clock give them."""
    return _OFFSET_SECONDS + time.monotonic()
