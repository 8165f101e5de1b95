"""`autotune command`: what to type to get the winner."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotuner.cli.run import RUNS


def command(
    run: Annotated[str | None, typer.Argument(help="Run folder or name; the newest when left out.")] = None,
    trial: Annotated[int | None, typer.Option("--trial", help="This trial instead of the winner.")] = None,
    format: Annotated[
        str | None, typer.Option("--format", help="shell, docker or compose; as it was launched when left out.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder that holds the runs.")] = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Print the launch command of a run's winner."""
    from autotuner.cli import display
    from autotuner.cli.results import the_trial
    from autotuner.deploy import render
    from autotuner.errors import UsageError
    from autotuner.store import RunStore, find_run
    from autotuner.wire import launch_form

    store = RunStore.open(find_run(run, output))
    chosen = the_trial(store, trial)
    spec = chosen.measurement.spec
    if spec is None:
        raise UsageError(
            f"Trial {chosen.number} has no launch command.",
            why="It was measured on an endpoint that ran already, or it ended before its command was made.",
            remedy="Choose another trial with --trial.",
        )
    format = format or launch_form(store.experiment)
    rendered = render(spec, format)
    if as_json:
        display.json({"trial": chosen.number, "source": chosen.measurement.source, "format": format, "text": rendered})
        return
    if chosen.measurement.source != "measured":
        starts = (
            "this starts the simulated engine" if chosen.candidate.runtime == "sim" else "no such server was started"
        )
        display.note(f"Note: trial {chosen.number} is {chosen.measurement.source}; {starts}.")
    display.text(rendered)
