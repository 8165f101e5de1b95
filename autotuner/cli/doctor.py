"""`autotune doctor`: what this machine can run."""

from __future__ import annotations

from typing import Annotated

from autotuner.cli.load_options import JSON_OPTION


def doctor(as_json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Show what this machine can run: GPUs, Docker, engines, load generator, disk, models."""
    from autotuner.cli import display
    from autotuner.cli.machine_checks import check_machine

    findings = check_machine()
    if as_json:
        display.json([{"part": f.part, "state": f.state, "found": f.details, "remedy": f.remedy} for f in findings])
        return
    part = max(len(f.part) for f in findings)
    state = max(len(f.state) for f in findings)
    indent = " " * (part + state + 4)
    for f in findings:
        # running text keeps paths whole, which a cell of a table would break
        display.sentence(f"{f.part:<{part}}  {f.state:<{state}}  {f.details}", indent)
        if f.remedy:
            display.sentence(f"{indent}To change that: {f.remedy}", indent)
    display.line("The simulated engine runs on any machine: autotune run --profile quick-test")
