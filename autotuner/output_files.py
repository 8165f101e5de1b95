"""Files that are replaced as a whole: whoever reads one finds the old content or the new, and never a part."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

MAX_NAME_CHARACTERS = 40
"""Characters of a file's name in that of its draft, at 4 bytes each: file systems take names of 255 bytes."""


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file by one with this content, synced first; OSError leaves the old one as it was.

    A link is followed and permissions stay. Devices, pipes, and files in folders that take no new file are written
    in place.
    """
    target = Path(os.path.realpath(path))
    mode = _mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        path.write_bytes(data)  # of a folder: IsADirectoryError
        return
    draft = target.with_name(f".{target.name[:MAX_NAME_CHARACTERS]}.{os.getpid()}.partial")
    try:
        draft.unlink(missing_ok=True)
        with draft.open("xb") as file:
            if mode is not None:
                draft.chmod(stat.S_IMODE(mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except OSError as error:
        if mode is not None and error.errno in (errno.EACCES, errno.EPERM):
            path.write_bytes(data)
            return
        error.filename, error.filename2 = str(path), None  # the file that was asked for, and not its draft
        raise
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _mode(path: Path) -> int | None:
    """The mode of what is at a path; None where nothing is."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
