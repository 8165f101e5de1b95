"""`autotune doctor`: the engines and hardware of this machine."""

from __future__ import annotations

from typing import Annotated

from autotuner.cli.load_options import JSON_OPTION


def doctor(as_json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Show what this machine can run: GPUs, Docker, engines, load generator, disk, models."""
    from autotuner.cli import display
    from autotuner.cli.machine_checks import check_machine

    findings = check_machine()
    if as_json:
        display.json(
            [
                {"part": finding.part, "state": finding.state, "found": finding.details, "remedy": finding.remedy}
                for finding in findings
            ]
        )
        return
    part_width = max(len(finding.part) for finding in findings)
    state_width = max(len(finding.state) for finding in findings)
    indent = " " * (part_width + state_width + 4)
    for finding in findings:
        # running text keeps paths whole, which a cell of a table would break
        display.sentence(f"{finding.part:<{part_width}}  {finding.state:<{state_width}}  {finding.details}", indent)
        if finding.remedy:
            display.sentence(f"{indent}To change that: {finding.remedy}", indent)
    display.line("The simulated engine runs on any machine: autotune run --profile quick-test")
