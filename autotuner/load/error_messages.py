"""Error messages of servers, and quotes of what they sent, as they may be shown."""

from __future__ import annotations

from collections.abc import Mapping

from autotuner.endpoints.headers import mask_secrets
from autotuner.escaping import one_line

_MAX_LENGTH = 240


def readable_message(message: str, headers: Mapping[str, str]) -> str:
    """The message on one line, with its control characters escaped and without secrets, then shortened.

    Shortening comes last: the rest of a secret that was cut in two would not be recognized.
    """
    masked = mask_secrets(message, headers)
    line = one_line(masked)
    return line if len(line) <= _MAX_LENGTH else line[: _MAX_LENGTH - 3] + "..."
