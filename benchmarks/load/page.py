"""Writes measured tables into documentation pages, between two markers, with the date and the machine."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path


def machine() -> str:
    """Describe the processor, memory, system and interpreter."""
    model = re.search(r"^model name\s*: (.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal: *(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE)
    parts = [f"{os.cpu_count()} cores" + (f" of {model[1]}" if model else "")]
    if memory:
        parts.append(f"{int(memory[1]) / 2**20:.0f} GiB")
    return ", ".join([*parts, f"{platform.system()} {platform.machine()}", f"Python {platform.python_version()}"])


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def write_section(path: Path, name: str, text: str) -> None:
    """Replace the text between the markers of `name`; ValueError when the page has none."""
    page = path.read_text(encoding="utf-8")
    opening, closing = f"<!-- measured: {name} -->", "<!-- end -->"
    start = page.find(opening)
    end = page.find(closing, start)
    if start < 0 or end < 0:
        raise ValueError(f"{path} has no section '{name}'")
    path.write_text(f"{page[: start + len(opening)]}\n{text.strip()}\n{page[end:]}", encoding="utf-8")


def _read(path: str) -> str:
    file = Path(path)
    return file.read_text() if file.exists() else ""
