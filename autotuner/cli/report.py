"""`autotune report`: the results of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from autotuner.cli.gate import FAIL_ON_OPTION, Gate
from autotuner.cli.load_options import DEFAULT_RUNS_FOLDER, OUTPUT, RUN_ARGUMENT, RUNS_FOLDER_OPTION, option


def report(
    run: Annotated[str | None, RUN_ARGUMENT] = None,
    format: Annotated[
        str, option("--format", metavar="table|markdown|json|csv", help="Output format.", panel=OUTPUT)
    ] = "table",
    output: Annotated[Path, RUNS_FOLDER_OPTION] = DEFAULT_RUNS_FOLDER,
    fail_on: Annotated[str, FAIL_ON_OPTION] = "none",
    as_json: Annotated[bool, option("--json", help="Same as --format json.", panel=OUTPUT)] = False,
) -> None:
    """Show the ranking of a finished or interrupted run."""
    from autotuner.cli import display
    from autotuner.cli.results import print_ranking
    from autotuner.errors import UsageError, unknown_name_message
    from autotuner.escaping import for_shell
    from autotuner.report.run_view import RunView
    from autotuner.runs.store import RunStore, find_run

    gate = Gate.parse(fail_on)
    output_format = "json" if as_json else format
    formats = ("table", "markdown", "json", "csv")
    if output_format not in formats:
        raise UsageError(unknown_name_message("format", output_format, formats))
    store = RunStore.open(find_run(run, output))
    view = RunView.from_store(store)
    if not view.trials:
        raise UsageError(
            f"The run '{store.path}' has no finished trial.",
            remedy=f"Resume it: autotune run --resume {for_shell(str(store.path))}",
        )
    if output_format == "table":
        display.line(f"run {store.path}")
        print_ranking(view)
    elif output_format == "json":
        from autotuner.report.record import run_record

        display.json(run_record(view))
    elif output_format == "csv":
        from autotuner.report.csv import csv_text

        display.text(csv_text(view))
    else:
        from autotuner.report.markdown import markdown_report

        display.text(markdown_report(view))
    if gate.fails_on_infeasible:
        gate.check_run(view)
