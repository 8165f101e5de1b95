"""`autotune clean`: remove what a killed run left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from autotuner.cli.load_options import AS_JSON, RUNS, RUNS_FOLDER


def clean(
    output: Annotated[Path, RUNS_FOLDER] = RUNS,
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Remove what killed runs left: containers, processes, GPU locks, half-written files.

    Finished trials are kept, and nothing a running autotune uses is touched.
    """
    from autotuner.cli import display
    from autotuner.cli.leftovers import half_written
    from autotuner.launchers.orphans import sweep

    removed = [*sweep(), *half_written(output)]
    if as_json:
        display.json([{"kind": kind, "name": name} for kind, name in removed])
        return
    for kind, name in removed:
        display.line(f"removed {kind} {name}")
    if not removed:
        display.line("Nothing was left behind.")
