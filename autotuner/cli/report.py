"""`autotune report`: the results of a run or a load test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from autotuner.cli.gate import FAIL_ON_OPTION, Gate
from autotuner.cli.load_options import DEFAULT_RUNS_FOLDER, OUTPUT, RUN_ARGUMENT, RUNS_FOLDER_OPTION, option

if TYPE_CHECKING:
    from autotuner.runs.store import RunStore


def report(
    run: Annotated[str | None, RUN_ARGUMENT] = None,
    format: Annotated[
        str, option("--format", metavar="table|markdown|json|csv", help="Output format.", panel=OUTPUT)
    ] = "table",
    output: Annotated[Path, RUNS_FOLDER_OPTION] = DEFAULT_RUNS_FOLDER,
    fail_on: Annotated[str, FAIL_ON_OPTION] = "none",
    as_json: Annotated[bool, option("--json", help="Same as --format json.", panel=OUTPUT)] = False,
) -> None:
    """Show the ranking of a finished or interrupted run, or the load points of a load test."""
    from autotuner.cli import display
    from autotuner.cli.results import print_ranking
    from autotuner.errors import UsageError, unknown_name_message
    from autotuner.report.run_view import RunView
    from autotuner.runs.store import RunStore, find_run

    gate = Gate.parse(fail_on)
    output_format = "json" if as_json else format
    formats = ("table", "markdown", "json", "csv")
    if output_format not in formats:
        raise UsageError(unknown_name_message("format", output_format, formats))
    store = RunStore.open(find_run(run, output))
    if store.kind == "load-test":
        _report_load_test(store, output_format, gate)
        return
    view = RunView.from_store(store)
    if not view.trials:
        raise UsageError(
            f"The run '{store.path}' has no finished trial.",
            remedy=f"Resume it: autotune run --resume {store.path}",
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


def _report_load_test(store: RunStore, output_format: str, gate: Gate) -> None:
    """Show a load test as `autotune bench` does."""
    from autotuner.cli.results import print_load_test
    from autotuner.errors import UsageError
    from autotuner.report.bench.folder import JSON_FILE
    from autotuner.report.bench.result import BenchResult

    if not store.trials():
        raise UsageError(
            f"The load test '{store.path}' did not end.",
            why=f"It was killed, or goes on. Its load points so far are in {JSON_FILE}.",
            remedy="Start it again with autotune bench.",
        )
    if output_format == "markdown":
        raise UsageError("A load test has no Markdown.", remedy="Give --format table, json or csv.")
    result = BenchResult.from_store(store)
    print_load_test(result, output_format)
    if gate.fails_on_infeasible:
        gate.check_load_test(result)
