"""`autotune compare`: runs against a baseline, and the gate of a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotuner.cli.load_options import DEFAULT_RUNS_FOLDER, OUTPUT, RUNS_FOLDER_OPTION, option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autotuner.compare.compared_run import ComparedRun
    from autotuner.compare.comparison import Comparison
    from autotuner.compare.gate import GateDecision

GATE = "Gate"
UNCLEAR_VALUES = ("fail", "pass")


def compare(
    baseline: Annotated[
        str,
        typer.Argument(
            metavar="BASELINE", help="Folder or name of a run or load test, or file of `autotune baseline save`."
        ),
    ],
    new: Annotated[list[str], typer.Argument(metavar="RUN", help="Runs, or load tests, to compare with it.")],
    output: Annotated[Path, RUNS_FOLDER_OPTION] = DEFAULT_RUNS_FOLDER,
    tolerance: Annotated[
        str,
        option("--tolerance", metavar="PERCENT", help="Relative change that does not matter.", panel=GATE),
    ] = "3%",
    gate: Annotated[
        bool,
        option(
            "--gate",
            help="Exit with 1 if the winner is worse, 4 if that is unclear, 2 if the runs cannot be compared.",
            panel=GATE,
        ),
    ] = False,
    launches: Annotated[
        int,
        option(
            "--launches",
            metavar="N",
            help="Launch both winners again, in turn, until the gate is decided: up to N times each, 2 to 5.",
            panel=GATE,
            default="none, the recorded launches decide",
        ),
    ] = 0,
    unclear: Annotated[
        str, option("--unclear", metavar="fail|pass", help="What the gate does where it is unclear.", panel=GATE)
    ] = "fail",
    allow: Annotated[
        list[str] | None,
        option(
            "--allow",
            metavar="NAME",
            help="Compare although the runs differ in this: source, model, scenario, slo, gpu, ...; repeatable.",
            panel=GATE,
            default="none",
        ),
    ] = None,
    junit: Annotated[
        Path | None,
        option(
            "--junit", metavar="FILE", help="Write the gate as JUnit; unclear is skipped.", panel=OUTPUT, default="none"
        ),
    ] = None,
    markdown: Annotated[
        Path | None,
        option("--markdown", metavar="FILE", help="Write the comparison as Markdown.", panel=OUTPUT, default="none"),
    ] = None,
    github: Annotated[
        bool, option("--github", help="Print annotations, and append to the summary of the step.", panel=OUTPUT)
    ] = False,
    format: Annotated[
        str, option("--format", metavar="table|markdown|json|html", help="Output format.", panel=OUTPUT)
    ] = "table",
    to: Annotated[
        Path | None,
        option(
            "--to",
            metavar="FILE",
            help="File to write instead of printing; not for a table.",
            panel=OUTPUT,
            default="print; html: comparison.html",
        ),
    ] = None,
    as_json: Annotated[bool, option("--json", help="Same as --format json.", panel=OUTPUT)] = False,
) -> None:
    """Compare runs with a baseline: what was changed, what moved beyond noise; with --gate, exit accordingly."""
    from autotuner.cli.comparison_output import annotate, show_comparisons, write_gate_files
    from autotuner.compare.comparison import Comparison
    from autotuner.compare.gate import decide

    output_format = "json" if as_json else format
    _check_format(output_format, to)
    share = _parse_tolerance(tolerance)
    _check_options(gate, launches, unclear, junit, allow or [])
    first = _load(baseline, output)
    comparisons = [Comparison(first, _load(name, output), share) for name in new]
    for comparison in comparisons:
        _check_comparable(comparison, allow or [])
        if gate and comparison.baseline.winner is None:
            _refuse_without_winner(comparison.baseline)
    decisions: list[GateDecision | None] = [None for _ in comparisons]
    if launches:
        pairs = [_with_fresh_pairs(each, name, output, launches) for each, name in zip(comparisons, new, strict=True)]
        comparisons, decisions = [each for each, _ in pairs], [decision for _, decision in pairs]
    elif gate or junit:
        decisions = [decide(comparison) for comparison in comparisons]
    write_gate_files(comparisons, decisions, junit, markdown)
    show_comparisons(comparisons, decisions, output_format, to)
    if github:
        annotate(comparisons, decisions)
    if gate:
        _exit_by_gate(comparisons, decisions, unclear, says_why=output_format in ("json", "markdown"))


def _check_format(output_format: str, to: Path | None) -> None:
    from autotuner.cli.comparison_output import FORMATS
    from autotuner.errors import UsageError, unknown_name_message

    if output_format not in FORMATS:
        raise UsageError(unknown_name_message("format", output_format, FORMATS))
    if to is not None and output_format == "table":
        raise UsageError(
            "A table is laid out for the terminal and not written to a file.",
            remedy="Choose --format html, markdown or json.",
        )


def _parse_tolerance(text: str) -> float:
    from autotuner.errors import UsageError

    try:
        value = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        value = 0.0
    if not 0 < value <= 0.5:
        raise UsageError(
            f"The tolerance '{text}' is not a share.", remedy="Give percent above 0 and up to 50, such as 3%."
        )
    return value


def _check_options(gate: bool, launches: int, unclear: str, junit: Path | None, allow: Sequence[str]) -> None:
    from autotuner.compare.differences import IDENTITY_NAMES
    from autotuner.errors import UsageError, unknown_name_message

    if unclear not in UNCLEAR_VALUES:
        raise UsageError(unknown_name_message("value of --unclear", unclear, UNCLEAR_VALUES))
    if launches and not 2 <= launches <= 5:
        raise UsageError(
            f"--launches {launches} is not between 2 and 5.", why="One pair of launches has no spread of its own."
        )
    if launches and not gate:
        raise UsageError("--launches belongs to a gate.", remedy="Add --gate, or leave it out.")
    if junit and not gate:
        raise UsageError("--junit is the file of a gate.", remedy="Add --gate, or leave it out.")
    for name in allow:
        if name not in IDENTITY_NAMES:
            raise UsageError(unknown_name_message("value of --allow", name, IDENTITY_NAMES))


def _load(name: str, output: Path) -> ComparedRun:
    """The run or baseline file called `name`."""
    from autotuner.compare.baseline_file import load_baseline
    from autotuner.compare.compared_run import ComparedRun
    from autotuner.errors import RunStoreError, UsageError
    from autotuner.runs.store import EXPERIMENT_FILE, RunStore, find_run

    path = Path(name)
    if path.is_file() and path.name != EXPERIMENT_FILE:
        return load_baseline(path)
    folder = path.parent if path.is_file() else find_run(name, output)
    if not folder.exists():
        raise RunStoreError(_no_run_message(name, output), remedy=_WHAT_IS_COMPARED)
    store = RunStore.open(folder)
    if not store.trials():
        again = "autotune bench" if store.kind == "load-test" else f"autotune run --resume {store.path}"
        raise UsageError(
            f"'{store.path}' has no finished {'load test' if store.kind == 'load-test' else 'trial'}.",
            remedy=f"{'Start it again' if store.kind == 'load-test' else 'Resume it'}: {again}",
        )
    return ComparedRun.from_store(store)


_WHAT_IS_COMPARED = (
    "Name the folder of a run or load test, a run in the folder of --output, an experiment.yaml in one of these, or a "
    "file of `autotune baseline save`."
)


def _no_run_message(name: str, output: Path) -> str:
    """Say that there is no such run, with the nearest name of one."""
    from autotuner.errors import unknown_name_message
    from autotuner.runs.store import run_folders

    runs = [path.name for path in run_folders(output)]
    return unknown_name_message("run or baseline", name, runs) if runs else f"There is no run or baseline '{name}'."


def _check_comparable(comparison: Comparison, allow: Sequence[str]) -> None:
    from autotuner.errors import UsageError

    differences = [each for each in comparison.incomparable if each.name not in allow]
    if differences:
        flags = " ".join(f"--allow {each.name}" for each in differences)
        raise UsageError(
            f"'{comparison.new.name}' cannot be compared with '{comparison.baseline.name}'.",
            why="They differ in " + "; ".join(str(each) for each in differences) + ".",
            remedy=f"Compare runs of the same question, or insist: {flags}",
        )


def _refuse_without_winner(baseline: ComparedRun) -> None:
    from autotuner.errors import UsageError

    raise UsageError(
        f"The baseline '{baseline.name}' has no {baseline.words.best}.",
        why=f"{baseline.words.none_is_best}, so that there is nothing that could get worse.",
        remedy="Take one that has, or other targets.",
    )


def _with_fresh_pairs(
    comparison: Comparison, name: str, output: Path, launches: int
) -> tuple[Comparison, GateDecision | None]:
    from autotuner.cli import display
    from autotuner.cli.signals import terminated_as_interrupted
    from autotuner.compare.fresh_pairs import compare_with_fresh_pairs
    from autotuner.compare.gate import decide
    from autotuner.core import Progress
    from autotuner.runs.store import find_run

    if comparison.new.winner is None:
        return comparison, decide(comparison)
    run_folder = find_run(name, output)
    folder = (run_folder if run_folder.is_dir() else output) / "pairs"
    display.note(f"up to {launches} pairs of {comparison.words.repetitions}, in turn, into {folder}")

    def observe(number: int, side: str, run: ComparedRun, progress: Progress) -> None:
        if progress.stage == "starting":
            display.progress(f"pair {number}: launching the {side}, the {comparison.words.best} of {run.name}")

    with terminated_as_interrupted():
        return compare_with_fresh_pairs(comparison, folder, launches, observe)


def _exit_by_gate(
    comparisons: Sequence[Comparison], decisions: Sequence[GateDecision | None], unclear: str, *, says_why: bool
) -> None:
    """Raise where a gate fails: worse before unclear. With `says_why` the error has the headline, which was printed
    already where the comparison is text."""
    from autotuner.cli import display
    from autotuner.compare.comparison import headline
    from autotuner.compare.gate import GateState, failed_figures_text
    from autotuner.errors import GateUnclearError, GateWorseError

    decided = [(each, decision) for each, decision in zip(comparisons, decisions, strict=True) if decision is not None]
    for comparison, decision in decided:
        if decision.state is GateState.WORSE:
            why = headline(comparison) if says_why else ""
            raise GateWorseError(f"The gate does not pass: {failed_figures_text(comparison, decision)}", why=why)
    for comparison, decision in decided:
        if decision.state is GateState.UNCLEAR:
            error = GateUnclearError(
                f"The gate does not decide: {failed_figures_text(comparison, decision)}",
                why=headline(comparison) if says_why else "",
                remedy="Repeat both in turn with --launches 5, raise --tolerance, or let it pass with --unclear pass.",
            )
            if unclear == "fail":
                raise error
            display.warning(str(error))
