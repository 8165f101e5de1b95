"""The requests that a load point's metrics are computed from, and which of them failed."""

from __future__ import annotations

import math

from autotuner.core import Observation, RequestRecord

NO_TOKENS_ERROR = "no-tokens"
"""The error class of a complete response without a token."""


def error_class(record: RequestRecord) -> str | None:
    """Why a request failed; None when it got at least one token and no error."""
    return record.error or (None if len(record.chunk_times) else NO_TOKENS_ERROR)


def records_in_window(observation: Observation) -> list[RequestRecord]:
    """The requests due inside the window, without those that only keep up the load before and after it.

    Of an aborted load point all count, because it may have failed in its warm-up. In a closed loop a
    request is due when it is sent. In an open loop a request that was delayed past the window's end
    counts, because leaving it out would hide the delay.
    """
    start, end = observation.window
    records = [record for record in observation.records if start <= record.scheduled <= end]
    return records if observation.abort_reason else [record for record in records if record.index >= 0]


def mean_in_flight(observation: Observation) -> float:
    """The time-averaged number of requests in flight in the window, those that started before it included."""
    start, end = observation.window
    request_seconds = math.fsum(
        max(0.0, min(record.finished, end) - max(record.sent, start)) for record in observation.records
    )
    return request_seconds / window_seconds(observation)


def window_seconds(observation: Observation) -> float:
    """The window's length; infinite for an empty window, so that its rates are 0."""
    start, end = observation.window
    return end - start if end > start else math.inf
