"""Which requests a load point's figures are about, and which of them failed."""

from __future__ import annotations

import math

from autotuner.core import Observation, RequestRecord

NO_TOKENS = "no-tokens"
"""The error class of a response that ended well and carried no token."""


def error_class(record: RequestRecord) -> str | None:
    """Why a request failed; None when it answered with at least one token."""
    return record.error or (None if len(record.chunk_times) else NO_TOKENS)


def started_in_window(observation: Observation) -> list[RequestRecord]:
    """The requests due inside the window; those the run itself cut off are not among the records.

    In a closed loop a request is due when it is sent. In an open loop the one that was delayed past
    the window's end counts, for it is the one that tells of the delay.
    """
    start, end = observation.window
    return [record for record in observation.records if start <= record.scheduled <= end]


def window_seconds(observation: Observation) -> float:
    """The window's length; infinite for an empty one, in which nothing has a rate."""
    start, end = observation.window
    return end - start if end > start else math.inf
