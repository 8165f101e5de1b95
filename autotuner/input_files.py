"""Text, JSON and YAML that others wrote: read with a limit, and never from a device, which may have no end."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

MAX_BYTES = 256 << 20


def read_text(path: Path, max_bytes: int | None = MAX_BYTES) -> str:
    """The text of a file in UTF-8, without a byte order mark; OSError as `read_bytes`, ValueError if it is no UTF-8."""
    return read_bytes(path, max_bytes).decode("utf-8-sig")


def expand_home(name: str) -> Path:
    """The path, with `~` or `~user` at its start as a folder; that of an unknown user stays as it is."""
    return Path(os.path.expanduser(name))  # noqa: PTH111, Path.expanduser raises RuntimeError then


def open_bytes(path: Path) -> BinaryIO:
    """Open a file or a pipe for reading; OSError if it is a device."""
    file = path.open("rb")
    mode = os.fstat(file.fileno()).st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        file.close()
        raise OSError(errno.ENODEV, "It is a device, and no file", str(path))
    return file


def read_bytes(path: Path, max_bytes: int | None = MAX_BYTES) -> bytes:
    """The content of a file or a pipe; OSError if it is a device or has more bytes."""
    with open_bytes(path) as file:
        data = file.read() if max_bytes is None else file.read(max_bytes + 1)
    if max_bytes is not None and len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"It has more than {max_bytes >> 20} MiB", str(path))
    return data


def read_yaml(path: Path) -> Any:
    """The YAML of a file; OSError as `read_text`, ValueError if it is none or nested too deeply."""
    import yaml

    try:
        return yaml.safe_load(read_text(path))
    except RecursionError as error:
        raise ValueError("The YAML is nested too deeply.") from error
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError) as error:
        # the library's own constructors raise the others, as for `!!int x`
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0]) from error


def read_json(path: Path) -> Any:
    """The JSON of a file; OSError as `read_text`, ValueError if it is none or nested too deeply."""
    try:
        return json.loads(read_text(path))
    except RecursionError as error:
        raise ValueError("The JSON is nested too deeply.") from error
