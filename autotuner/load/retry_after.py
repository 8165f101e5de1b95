"""The pause that a refusal asks for: the Retry-After of its response, as seconds or as a date."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

REFUSAL_STATUSES = (429, 503)

MAX_SECONDS = 60.0
"""A longer pause is not kept: a window would end in it."""

_HEADER = re.compile(rb"\r?\nretry-after:[ \t]*([^\r\n]*)", re.IGNORECASE)
_HEAD_BYTES = 16_384


def retry_after(status: int, pieces: Sequence[bytes]) -> float | None:
    """Seconds that a response asks its client to wait; None where it asks for nothing that can be read."""
    if status not in REFUSAL_STATUSES:
        return None
    head = b"".join(pieces)[:_HEAD_BYTES].partition(b"\r\n\r\n")[0]
    match = _HEADER.search(head)
    if match is None:
        return None
    text = match[1].decode("latin-1").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return float(text)
    from email.utils import parsedate_to_datetime  # loads half of the email package

    try:
        date = parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
