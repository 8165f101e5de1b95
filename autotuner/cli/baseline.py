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
    from autotuner.runs.store import RunStore, find_run

    if to.exists() and not accept:
        raise UsageError(
            f"'{to}' is there already.",
            why="A baseline is replaced only on purpose, so that no slow drift becomes normal.",
            remedy="Compare with it first; then accept the new one: add --accept.",
        )
    store = RunStore.open(find_run(run, output))
    compared = ComparedRun.from_store(store)
    if compared.winner is None:
        raise UsageError(
            f"'{store.path}' has no {compared.words.best}.",
            why=f"{compared.words.none_is_best}, so that a gate would have nothing that could get worse.",
            remedy="Save one that met them.",
        )
    save_baseline(compared, to)
    words = compared.words
    launches = pluralize(len(compared.winner.launches), words.repetition, words.repetitions)
    best = words.best if compared.is_load_test else compared.winner.label
    display.line(f"{to}: {best} of {compared.name}, {launches}")
