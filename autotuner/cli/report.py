"""`autotune report`: the results of a run or a load test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from autotuner.cli.gate import FAIL_ON_OPTION, Gate
from autotuner.cli.load_options import DEFAULT_RUNS_FOLDER, OUTPUT, RUN_ARGUMENT, RUNS_FOLDER_OPTION, option

if TYPE_CHECKING:
    from autotuner.report.bench.result import BenchResult
    from autotuner.report.run_view import RunView
    from autotuner.runs.store import RunStore


def report(
    run: Annotated[str | None, RUN_ARGUMENT] = None,
    format: Annotated[
        str, option("--format", metavar="table|markdown|json|csv|html", help="Output format.", panel=OUTPUT)
    ] = "table",
    to: Annotated[
        Path | None,
        option(
            "--to",
            metavar="FILE",
            help="File to write instead of printing; not for a table.",
            panel=OUTPUT,
            default="print; html: report.html in the run folder",
        ),
    ] = None,
    output: Annotated[Path, RUNS_FOLDER_OPTION] = DEFAULT_RUNS_FOLDER,
    fail_on: Annotated[str, FAIL_ON_OPTION] = "none",
    as_json: Annotated[bool, option("--json", help="Same as --format json.", panel=OUTPUT)] = False,
) -> None:
    """Show the ranking of a finished or interrupted run, or the load points of a load test."""
    from autotuner.errors import UsageError, unknown_name_message
    from autotuner.runs.store import RunStore, find_run, paused_garbage_collection

    gate = Gate.parse(fail_on)
    output_format = "json" if as_json else format
    formats = ("table", "markdown", "json", "csv", "html")
    if output_format not in formats:
        raise UsageError(unknown_name_message("format", output_format, formats))
    if to is not None and output_format == "table":
        raise UsageError(
            "A table is laid out for the terminal and not written to a file.",
            remedy="Choose --format html, markdown, csv or json.",
        )
    store = RunStore.open(find_run(run, output))
    if store.kind == "load-test":
        _report_load_test(store, output_format, to, gate)
        return
    with paused_garbage_collection():
        _report_run(store, output_format, to, gate)


def _report_run(store: RunStore, output_format: str, to: Path | None, gate: Gate) -> None:
    """Show a run of candidates."""
    from autotuner.cli import display
    from autotuner.cli.results import print_ranking
    from autotuner.errors import UsageError
    from autotuner.escaping import for_shell
    from autotuner.report.run_view import RunView

    view = RunView.from_store(store, summarized=output_format != "csv")
    if not view.trials:
        raise UsageError(
            f"The run '{store.path}' has no finished trial.",
            remedy=f"Resume it: autotune run --resume {for_shell(str(store.path))}",
        )
    if output_format == "table":
        display.line(f"run {store.path}")
        print_ranking(view)
    elif output_format == "html":
        from autotuner.report.page.run_page import PAGE_FILE

        _write(_rendered(output_format, store, view), to or store.path / PAGE_FILE)
    elif to is not None:
        _write(_rendered(output_format, store, view), to)
    else:
        display.text(_rendered(output_format, store, view))
    if gate.fails_on_infeasible:
        gate.check_run(view)


def _rendered(output_format: str, store: RunStore, view: RunView) -> str:
    """The report as text in one of the formats that can be written to a file."""
    if output_format == "html":
        from autotuner.report.page.run_page import run_page

        return run_page(store, view).html
    if output_format == "json":
        from autotuner.cli import display
        from autotuner.report.record import is_brief, run_record

        return display.json_text(run_record(view), compact=is_brief(view))
    if output_format == "csv":
        from autotuner.report.csv import csv_text

        return csv_text(view)
    from autotuner.report.markdown import markdown_report

    return markdown_report(view)


def _write(text: str, path: Path) -> None:
    """Write a report and say where it is."""
    from autotuner.cli import display
    from autotuner.errors import UsageError
    from autotuner.redaction import write_redacted

    try:
        write_redacted(path, text)
    except OSError as error:
        raise UsageError(
            f"The report cannot be written to '{path}'.",
            why=f"{error.strerror}.",
            remedy="Name a file with --to in a folder that exists and can be written.",
        ) from error
    display.line(str(path))


def _report_load_test(store: RunStore, output_format: str, to: Path | None, gate: Gate) -> None:
    """Show a load test as `autotune bench` does."""
    from autotuner.cli import display
    from autotuner.cli.results import print_load_test
    from autotuner.errors import UsageError
    from autotuner.report.bench.folder import JSON_FILE
    from autotuner.report.bench.page import PAGE_FILE
    from autotuner.report.bench.result import BenchResult

    if not store.trials():
        raise UsageError(
            f"The load test '{store.path}' did not end.",
            why=f"It was killed, or goes on. Its load points so far are in {JSON_FILE}.",
            remedy="Start it again with autotune bench.",
        )
    result = BenchResult.from_store(store)
    if output_format == "html":
        _write(_rendered_load_test(output_format, result), to or store.path / PAGE_FILE)
    elif to is not None:
        _write(_rendered_load_test(output_format, result), to)
    elif output_format == "markdown":
        display.text(_rendered_load_test(output_format, result))
    else:
        print_load_test(result, output_format)
    if gate.fails_on_infeasible:
        gate.check_load_test(result)


def _rendered_load_test(output_format: str, result: BenchResult) -> str:
    """The load test as text in one of the formats that can be written to a file."""
    from autotuner.cli import display
    from autotuner.report.bench.page import load_test_markdown, load_test_page
    from autotuner.report.bench.record import bench_csv, bench_record

    if output_format == "json":
        return display.json_text(bench_record(result))
    if output_format == "csv":
        return bench_csv(result)
    return load_test_page(result) if output_format == "html" else load_test_markdown(result)
