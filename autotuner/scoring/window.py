"""Which requests a load point's figures are about, and which of them failed."""

from __future__ import annotations

import math

from autotuner.core import Observation, RequestRecord

NO_TOKENS_ERROR = "no-tokens"
"""The error class of a response that ended well and carried no token."""


def error_class(record: RequestRecord) -> str | None:
    """Why a request failed; None when it answered with at least one token."""
    return record.error or (None if len(record.chunk_times) else NO_TOKENS_ERROR)


def records_in_window(observation: Observation) -> list[RequestRecord]:
    """The requests due inside the window, without those that only keep up the load before and behind it.

    Of a load point that was given up all count, for it may have failed in its warm-up.

    In a closed loop a request is due when it is sent. In an open loop the one that was delayed past
    the window's end counts, for it is the one that tells of the delay.
    """
    start, end = observation.window
    due = [record for record in observation.records if start <= record.scheduled <= end]
    return due if observation.abort_reason else [record for record in due if record.index >= 0]


def mean_in_flight(observation: Observation) -> float:
    """Requests on their way, averaged over the window; of all that were, whenever they began."""
    start, end = observation.window
    busy = math.fsum(max(0.0, min(record.finished, end) - max(record.sent, start)) for record in observation.records)
    return busy / window_seconds(observation)


def window_seconds(observation: Observation) -> float:
    """The window's length; infinite for an empty one, in which nothing has a rate."""
    start, end = observation.window
    return end - start if end > start else math.inf
