"""Text and JSON that others wrote: read with a limit, and never from a device, which may have no end."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

MAX_BYTES = 256 << 20


def read_text(path: Path, max_bytes: int | None = MAX_BYTES) -> str:
    """The text of a file or a pipe in UTF-8, without a byte order mark.

    OSError where it is a device or has more bytes, UnicodeDecodeError where it is no UTF-8.
    """
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise OSError(errno.ENODEV, "It is a device, and no file", str(path))
        data = file.read() if max_bytes is None else file.read(max_bytes + 1)
    if max_bytes is not None and len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"It has more than {max_bytes >> 20} MiB", str(path))
    return data.decode("utf-8-sig")


def read_json(path: Path) -> Any:
    """The JSON of a file; OSError as `read_text`, ValueError where it is none or nested too deeply."""
    try:
        return json.loads(read_text(path))
    except RecursionError as error:
        raise ValueError("The JSON is nested too deeply.") from error
