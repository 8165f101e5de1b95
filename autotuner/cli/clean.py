"""`autotune clean`: remove what a killed run left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotuner.cli.run import RUNS


def clean(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder that holds the runs.")] = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Remove what killed runs left: containers, processes, GPU locks, half-written files.

    Finished trials are kept, and nothing a running autotune uses is touched.
    """
    from autotuner.cli import display
    from autotuner.cli.leftovers import half_written
    from autotuner.launchers.clean import sweep

    removed = [*sweep(), *half_written(output)]
    if as_json:
        display.json([{"kind": kind, "name": name} for kind, name in removed])
        return
    for kind, name in removed:
        display.line(f"removed {kind} {name}")
    if not removed:
        display.line("Nothing was left behind.")
