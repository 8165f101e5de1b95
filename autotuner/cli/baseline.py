"""`autotune baseline`: the file that a gate compares with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotuner.cli.load_options import DEFAULT_RUNS_FOLDER, OUTPUT, RUN_ARGUMENT, RUNS_FOLDER_OPTION, option

app = typer.Typer(help="Keep a run's figures as the baseline of a gate.", no_args_is_help=True)


@app.command()
def save(
    run: Annotated[str | None, RUN_ARGUMENT] = None,
    output: Annotated[Path, RUNS_FOLDER_OPTION] = DEFAULT_RUNS_FOLDER,
    to: Annotated[Path, option("--to", metavar="FILE", help="File to write.", panel=OUTPUT)] = Path("baseline.json"),
    accept: Annotated[bool, option("--accept", help="Replace a baseline that is there already.", panel=OUTPUT)] = False,
) -> None:
    """Write the figures of a run, without its request records, to one file to commit."""
    from autotuner.cli import display
    from autotuner.compare.baseline_file import save_baseline
    from autotuner.compare.compared_run import ComparedRun
    from autotuner.errors import UsageError, pluralize
    from autotuner.report.run_view import RunView
    from autotuner.runs.store import RunStore, find_run

    if to.exists() and not accept:
        raise UsageError(
            f"'{to}' is there already.",
            why="A baseline is replaced only on purpose, so that no slow drift becomes normal.",
            remedy="Compare with it first; then accept the new one: add --accept.",
        )
    store = RunStore.open(find_run(run, output))
    compared = ComparedRun.from_view(store.path.name, RunView.from_store(store), store.config())
    if compared.winner is None:
        raise UsageError(
            f"The run '{store.path}' has no winner.",
            why="A gate would have nothing that could get worse.",
            remedy="Save a run in which a candidate met the targets.",
        )
    save_baseline(compared, to)
    launches = pluralize(len(compared.winner.launches), "launch", "launches")
    display.line(f"{to}: {compared.winner.label} of {compared.name}, {launches}")
