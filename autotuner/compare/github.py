"""A gate on GitHub: annotations on stdout, and the step's summary."""

from __future__ import annotations

import os
from pathlib import Path

from autotuner.compare.comparison import Comparison, change_text
from autotuner.compare.gate import GateDecision, GateState
from autotuner.redaction import redact
from autotuner.runs.store import explain_write_errors

SUMMARY_LIMIT_BYTES = 1024 * 1024
"""Bytes of a step's summary, beyond which GitHub drops it."""


def annotation_lines(comparison: Comparison, decision: GateDecision) -> list[str]:
    """A workflow command for each gated figure that does not pass."""
    lines = []
    for figure, state in decision.figures:
        if state is GateState.PASSES:
            continue
        level = "error" if state is GateState.WORSE else "warning"
        size = "not measured" if figure.value_ratio is None else change_text(figure.value_ratio, figure.value_interval)
        title = _escape(f"{figure.name} {state}", in_property=True)
        lines.append(f"::{level} title={title}::{_escape(f'{comparison.new.name}: {size}')}")
    return lines


def _escape(text: str, *, in_property: bool = False) -> str:
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return escaped.replace(":", "%3A").replace(",", "%2C") if in_property else escaped


def append_summary(markdown: str) -> None:
    """Append to the step's summary, where GITHUB_STEP_SUMMARY names its file, as far as it has room."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    with explain_write_errors(Path(path)), Path(path).open("ab") as file:
        room = SUMMARY_LIMIT_BYTES - file.tell()
        file.write(redact(markdown).encode(errors="backslashreplace")[: max(0, room)].decode(errors="ignore").encode())
