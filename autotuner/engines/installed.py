"""Reads the flags of the engine at hand from its own --help, and remembers them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from autotuner.engines.flags import FlagTable, from_json, parse_help, to_json

TIMEOUT = 180.0
"""Seconds: engines import their whole framework to print their help."""

WIDE = "10000"
"""Columns: an option's names and choices must stay on one line."""


def read(command: Sequence[str], version_of: Sequence[Path], known: FlagTable) -> FlagTable | None:
    """The flags `command` prints, None when it cannot be asked; kept until a file of `version_of` changes."""
    memory = _memory(command, version_of)
    with contextlib.suppress(OSError, ValueError, KeyError):
        return from_json(json.loads(memory.read_text()))
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "COLUMNS": WIDE},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    table = parse_help(done.stdout, known.engine, _version(version_of) or known.version, known)
    if done.returncode != 0 or not table.flags:
        return None
    _remember(memory, table)
    return table


def recall(*key: str) -> FlagTable | None:
    """The flags remembered under a key; None when there are none."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return from_json(json.loads(_memory(key, ()).read_text()))
    return None


def remember(table: FlagTable, *key: str) -> None:
    """Keep the flags of an engine that cannot change under its key, such as an image's id."""
    _remember(_memory(key, ()), table)


def _version(files: Sequence[Path]) -> str:
    """The version in the name of a `NAME-VERSION.dist-info` folder."""
    names = [file.name.removesuffix(".dist-info") for file in files if file.suffix == ".dist-info"]
    return names[0].partition("-")[2] if names else ""


def _memory(command: Sequence[str], version_of: Sequence[Path]) -> Path:
    from platformdirs import user_cache_path

    states = [f"{path} {path.stat().st_mtime_ns}" for path in version_of if path.exists()]
    key = hashlib.sha256("\n".join([*command, *states]).encode()).hexdigest()[:16]
    return user_cache_path("autotune") / "flags" / f"{key}.json"


def _remember(memory: Path, table: FlagTable) -> None:
    # a full or read-only disk only costs asking again
    with contextlib.suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        draft = memory.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(to_json(table)))
        draft.replace(memory)


def find(given: str | None, name: str) -> str | None:
    """The absolute path of an executable: the one given, else `name` on PATH; None when there is none."""
    found = shutil.which(str(Path(given).expanduser()) if given else name)
    return str(Path(found).absolute()) if found else None


def distribution(executable: str, pattern: str) -> list[Path]:
    """The dist-info folders that match in the environment an executable belongs to."""
    homes = {Path(executable).parent.parent, Path(executable).resolve().parent.parent}
    return sorted(found for home in homes for found in home.glob(f"lib/python3.*/site-packages/{pattern}.dist-info"))
