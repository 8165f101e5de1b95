"""What the client decides at a load point, without a clock and without connections.

The load generator follows it in real time, the simulation in virtual time: both pass in the instants.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from autotuner.core import Workload

STOP_CHECK_SECONDS = 0.25
"""Interval at which a stop rule is evaluated."""
MAX_RAMP_SECONDS = 2.0
"""Maximum time over which the users of a closed loop start."""
MIN_RETRY_PAUSE_SECONDS, MAX_RETRY_PAUSE_SECONDS = 0.05, 1.0
"""Bounds of a user's exponential backoff after failures."""
MIN_GIVE_UP_FAILURES = 5
"""Minimum number of consecutive failures after which a load point is given up."""
IN_FLIGHT_GRACE_SECONDS, MIN_FAILING_SECONDS = 1.0, 2.0
"""A load point is not given up while a request younger than the first is in flight, nor sooner than the second."""
UNREACHABLE_ERRORS = frozenset({"connection-refused", "dns", "tls", "reset", "timeout", "unreachable"})
"""Errors after which a load point is given up even where requests succeeded before."""


def start_offset(user: int, users: int, workload: Workload) -> float:
    """Seconds after which user number `user` of a closed loop starts.

    They are spread over the first half of the warm-up, so that requests of equal length do not stay in step.
    """
    return min(workload.warmup / 2, MAX_RAMP_SECONDS) * user / users


def retry_pause(failures: int) -> float:
    """Seconds that a user waits after a failure that followed `failures` others in a row."""
    return min(MAX_RETRY_PAUSE_SECONDS, MIN_RETRY_PAUSE_SECONDS * float(2 ** min(failures, 10)))


class ClientPolicy:
    """Which requests of a load point count, when its window ends, and when it is given up.

    All times are seconds on the caller's clock. The window begins after the warm-up and ends after
    `window_seconds`, or with the last of `max_requests` if those were issued earlier, however late the next
    request is due. If the workload keeps its load, further requests follow without being counted until the
    last request of the window has ended: under a lower load the last ones would be faster. `users` is the
    number of requests a closed loop keeps in flight, 0 for an open loop.
    """

    def __init__(self, workload: Workload, window_seconds: float, max_requests: float, users: int) -> None:
        self.warmup, self.window_seconds = workload.warmup, window_seconds
        self.keeps_load = workload.keeps_load
        self.max_requests = max_requests
        self.give_up_failures = max(MIN_GIVE_UP_FAILURES, users)
        self.start = self.window_start = self.window_end = math.inf
        self.issued_count = 0
        self.unfinished_count = 0
        self.consecutive_failures = 0
        self.failing_since = 0.0
        self.any_success = False
        self.last_finish = 0.0

    def begin(self, start: float) -> None:
        """Start the warm-up at `start`."""
        self.start = start
        self.window_start = start + self.warmup
        self.window_end = self.window_start + self.window_seconds

    def issue(self, due: float) -> bool | None:
        """Count the request due at `due`: whether it is one of the window; None if no request is needed any more."""
        is_full = self.is_full(due)
        if is_full and not (self.keeps_load and self.unfinished_count):
            return None
        if is_full or due < self.window_start:
            return False
        self.issued_count += 1
        self.unfinished_count += 1
        return True

    def is_full(self, at: float) -> bool:
        """Whether a request due at `at` falls after the last one of the window."""
        return at >= self.window_end or self.issued_count >= self.max_requests

    def is_complete(self, now: float) -> bool:
        """Whether all requests of the window have been issued and have ended."""
        return not self.unfinished_count and self.is_full(now)

    def remaining_window_end(self, now: float) -> float:
        """The end of the window; infinity once it has passed."""
        return self.window_end if now < self.window_end else math.inf

    def finish(self, error: str | None, finished: float, *, counted: bool) -> None:
        """Count a request that ended at `finished`; `counted` is what `issue` returned for it."""
        if counted:
            self.unfinished_count -= 1
            self.last_finish = max(self.last_finish, finished)
        if error is None:
            self.any_success = True
            self.consecutive_failures = 0
            return
        if not self.consecutive_failures:
            self.failing_since = finished
        self.consecutive_failures += 1

    def gives_up(self, error: str, now: float, in_flight_sent: Iterable[float]) -> bool:
        """Whether only failures come back, the last one `error`, and no request in flight may still succeed.

        `in_flight_sent` are the instants at which the requests in flight were sent.
        """
        if self.consecutive_failures < self.give_up_failures:
            return False
        if self.any_success and error not in UNREACHABLE_ERRORS:
            return False
        oldest = min(in_flight_sent, default=None)
        if error == "timeout" or oldest is None:
            return True
        return now - oldest < IN_FLIGHT_GRACE_SECONDS and now - self.failing_since > MIN_FAILING_SECONDS

    def give_up_reason(self, error: str) -> str:
        """Why the load point is given up after the failure `error`."""
        return f"The last {self.consecutive_failures} requests failed: {error}."

    def window(self, now: float, *, ended_early: bool, gave_up: bool) -> tuple[float, float]:
        """Start and end of the measured window if the load point ends at `now`.

        A load point that is given up in its warm-up keeps that as its window.
        """
        start, end = self.window_start, self.window_end
        if ended_early or gave_up:
            end = min(end, now)
            if now < start:
                start = self.start
        elif self.issued_count >= self.max_requests:
            end = min(end, self.last_finish)
        return start, max(start, end)


def complete_until(window_end: float, unfinished_due: Iterable[float]) -> float:
    """Up to when every outcome is known: the window's end, or before the first unfinished request of it was due.

    Of later requests only the fast ones have ended.
    """
    return min([window_end, *(math.nextafter(due, 0.0) for due in unfinished_due)])
