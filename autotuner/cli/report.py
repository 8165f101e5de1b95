"""`autotune report`: a run's results, again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotuner.cli.gate import METAVAR, Gate
from autotuner.cli.run import RUNS


def report(
    run: Annotated[str | None, typer.Argument(help="Run folder or name; the newest when left out.")] = None,
    format: Annotated[str, typer.Option("--format", help="table, markdown, json or csv.")] = "table",
    fail_on: Annotated[str, typer.Option("--fail-on", metavar=METAVAR, help="What exits with 1.")] = "none",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder that holds the runs.")] = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """Show a run's ranking, from its record."""
    from autotuner.cli import display
    from autotuner.cli.results import show_ranking
    from autotuner.errors import UsageError, unknown
    from autotuner.scoring.rank import rank
    from autotuner.search.account import Account
    from autotuner.store import RunStore, find_run

    gate = Gate.read(fail_on)
    chosen = "json" if as_json else format
    formats = ("table", "markdown", "json", "csv")
    if chosen not in formats:
        raise UsageError(unknown("format", chosen, formats))
    store = RunStore.open(find_run(run, output))
    trials, experiment = store.trials(), store.experiment
    if not trials:
        raise UsageError(f"The run '{store.path}' has no finished trial.", remedy=f"autotune run --resume {store.path}")
    ranking, account = rank(trials, experiment), Account(*store.search())
    if chosen == "table":
        display.line(f"run {store.path}")
        show_ranking(ranking, trials, experiment, refused=store.refused(), account=account)
    elif chosen == "json":
        from autotuner.report.record import record

        display.json(record(ranking, trials, experiment, store.refused(), account))
    elif chosen == "csv":
        from autotuner.report.tabular import csv

        display.text(csv(ranking, trials, experiment))
    else:
        from autotuner.report.markdown import markdown

        display.text(markdown(ranking, trials, experiment, refused=store.refused(), account=account))
    if gate.infeasible:
        gate.judge(ranking)
