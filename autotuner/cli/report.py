"""`autotune report`: a run's results, again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from autotuner.cli.gate import FAIL_ON, Gate
from autotuner.cli.load_options import OUTPUT, RUN, RUNS, RUNS_FOLDER, option


def report(
    run: Annotated[str | None, RUN] = None,
    format: Annotated[
        str, option("--format", metavar="table|markdown|json|csv", help="How it is written.", panel=OUTPUT)
    ] = "table",
    output: Annotated[Path, RUNS_FOLDER] = RUNS,
    fail_on: Annotated[str, FAIL_ON] = "none",
    as_json: Annotated[bool, option("--json", help="The same as --format json.", panel=OUTPUT)] = False,
) -> None:
    """Show the ranking of a finished or interrupted run again."""
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
        from autotuner.report.csv import csv

        display.text(csv(ranking, trials, experiment))
    else:
        from autotuner.report.markdown import markdown

        display.text(markdown(ranking, trials, experiment, refused=store.refused(), account=account))
    if gate.infeasible:
        gate.judge(ranking)
