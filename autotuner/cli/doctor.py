"""`autotune doctor`: what this machine can run."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False) -> None:
    """Tell what this machine can run: GPUs, Docker, engines, disk, cache."""
    from autotuner.cli import display
    from autotuner.cli.machine import examine

    findings = examine()
    if as_json:
        display.json([{"part": f.part, "state": f.state, "found": f.found, "remedy": f.remedy} for f in findings])
        return
    rows = [{"part": f.part, "state": f.state, "found": f.found, "to change that": f.remedy} for f in findings]
    display.table(rows, ["part", "state", "found", "to change that"])
    display.line("The simulated engine runs on any machine: autotune run --profile quick-test")
