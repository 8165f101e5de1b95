"""Finds installed engines, reads their flags from --help, and caches them."""

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
from autotuner.input_files import expand_home
from autotuner.redaction import write_redacted

HELP_TIMEOUT_SECONDS = 180.0
"""Seconds: engines import their whole framework to print their help."""

HELP_COLUMNS = "10000"
"""COLUMNS for --help: an option's names and choices must stay on one line."""


def read_flags(command: Sequence[str], version_files: Sequence[Path], reference: FlagTable) -> FlagTable | None:
    """The flags that the --help `command` prints; None when it fails. Cached until one of `version_files` changes."""
    cache = _cache_file(command, version_files)
    with contextlib.suppress(OSError, ValueError, KeyError):
        return from_json(json.loads(cache.read_text()))
    try:
        result = subprocess.run(
            command,
            env={**os.environ, "COLUMNS": HELP_COLUMNS},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=HELP_TIMEOUT_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = _dist_info_version(version_files) or reference.version
    table = parse_help(result.stdout, reference.engine, version, reference)
    if result.returncode != 0 or not table.flags:
        return None
    _write_cache(cache, table)
    return table


def _dist_info_version(files: Sequence[Path]) -> str:
    """The version in the name of the first `NAME-VERSION.dist-info` folder; empty if there is none."""
    names = [file.name.removesuffix(".dist-info") for file in files if file.suffix == ".dist-info"]
    return names[0].partition("-")[2] if names else ""


def _cache_file(command: Sequence[str], version_files: Sequence[Path]) -> Path:
    from platformdirs import user_cache_path

    states = [f"{path} {path.stat().st_mtime_ns}" for path in version_files if path.exists()]
    key = hashlib.sha256("\n".join([*command, *states]).encode()).hexdigest()[:16]
    return user_cache_path("autotune") / "flags" / f"{key}.json"


def _write_cache(path: Path, table: FlagTable) -> None:
    # on a full or read-only disk the next call just reads --help again
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        write_redacted(draft, json.dumps(to_json(table)))
        draft.replace(path)


def find_executable(path: str | None, name: str) -> str | None:
    """The absolute path of the executable `path` if given, else of `name` on PATH; None when there is none."""
    executable = shutil.which(str(expand_home(path)) if path else name)
    return str(Path(executable).absolute()) if executable else None


def dist_info_folders(executable: str, pattern: str) -> list[Path]:
    """The matching dist-info folders of the Python environment that an executable belongs to."""
    environments = {Path(executable).parent.parent, Path(executable).resolve().parent.parent}
    return sorted(
        folder for root in environments for folder in root.glob(f"lib/python3.*/site-packages/{pattern}.dist-info")
    )
