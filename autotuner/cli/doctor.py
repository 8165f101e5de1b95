"""`autotune doctor`: what this machine can run."""

from __future__ import annotations

from typing import Annotated

from autotuner.cli.load_options import AS_JSON


def doctor(as_json: Annotated[bool, AS_JSON] = False) -> None:
    """Show what this machine can run: GPUs, Docker, engines, load generator, disk, models."""
    from autotuner.cli import display
    from autotuner.cli.machine import examine

    findings = examine()
    if as_json:
        display.json([{"part": f.part, "state": f.state, "found": f.found, "remedy": f.remedy} for f in findings])
        return
    rows = [{"part": f.part, "state": f.state, "found": f.found, "to change that": f.remedy} for f in findings]
    display.table(rows, ["part", "state", "found", "to change that"])
    display.line("The simulated engine runs on any machine: autotune run --profile quick-test")
