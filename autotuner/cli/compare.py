"""`autotune compare`: runs against a baseline, and the gate of a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotuner.cli.load_options import DEFAULT_RUNS_FOLDER, JSON_OPTION, OUTPUT, RUNS_FOLDER_OPTION, option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autotuner.compare.compared_run import ComparedRun
    from autotuner.compare.comparison import Comparison
    from autotuner.compare.gate import GateDecision

GATE = "Gate"
UNCLEAR_VALUES = ("fail", "pass")


def compare(
    baseline: Annotated[
        str, typer.Argument(metavar="BASELINE", help="Run folder, run name, or file of `autotune baseline save`.")
    ],
    new: Annotated[list[str], typer.Argument(metavar="RUN", help="Runs to compare with it.")],
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
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Compare runs with a baseline: what was changed, what moved beyond noise; with --gate, exit accordingly."""
    from autotuner.cli import display
    from autotuner.compare.comparison import Comparison
    from autotuner.compare.gate import decide
    from autotuner.compare.record import comparison_record

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
    _write_files(comparisons, decisions, junit, markdown)
    if as_json:
        records = [comparison_record(each, decision) for each, decision in zip(comparisons, decisions, strict=True)]
        display.json({"comparisons": records})
    else:
        for comparison, decision in zip(comparisons, decisions, strict=True):
            _print(comparison, decision)
    if github:
        _annotate(comparisons, decisions)
    if gate:
        _exit_by_gate(comparisons, decisions, unclear)


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
    from autotuner.errors import UsageError
    from autotuner.report.run_view import RunView
    from autotuner.runs.store import RunStore, find_run

    if Path(name).is_file():
        return load_baseline(Path(name))
    store = RunStore.open(find_run(name, output))
    view = RunView.from_store(store)
    if not view.trials:
        raise UsageError(
            f"The run '{store.path}' has no finished trial.",
            remedy=f"Resume it: autotune run --resume {store.path}",
        )
    return ComparedRun.from_view(store.path.name, view, store.config())


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
        f"The baseline '{baseline.name}' has no winner.",
        why="None of its candidates met the targets, so that there is nothing that could get worse.",
        remedy="Take a run that has one, or other targets.",
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
    display.note(f"up to {launches} pairs of launches, in turn, into {folder}")

    def observe(progress: Progress) -> None:
        if progress.stage == "starting":
            display.progress(f"launching {progress.candidate}")

    with terminated_as_interrupted():
        return compare_with_fresh_pairs(comparison, folder, launches, observe)


def _write_files(
    comparisons: Sequence[Comparison],
    decisions: Sequence[GateDecision | None],
    junit: Path | None,
    markdown: Path | None,
) -> None:
    if junit:
        from autotuner.compare.junit import write_junit

        write_junit(junit, comparisons, [decision for decision in decisions if decision is not None])
    if markdown:
        from autotuner.compare.markdown import comment_markdown, comparison_markdown
        from autotuner.redaction import write_redacted
        from autotuner.runs.store import explain_write_errors

        with explain_write_errors(markdown):
            markdown.parent.mkdir(parents=True, exist_ok=True)
            write_redacted(markdown, comment_markdown(comparison_markdown(comparisons, decisions)))


def _print(comparison: Comparison, decision: GateDecision | None) -> None:
    from autotuner.cli import display
    from autotuner.compare.comparison import headline
    from autotuner.compare.tables import (
        FIGURE_COLUMNS,
        GATED_COLUMNS,
        INTERVAL_NOTE,
        NUMERIC_COLUMNS,
        PRIORITIES,
        failure_lines,
        figure_rows,
        gated_rows,
    )
    from autotuner.report.formatting import SOURCE_NOTES

    display.sentence(headline(comparison))
    for source in dict.fromkeys((*comparison.baseline.sources, *comparison.new.sources)):
        if source in SOURCE_NOTES:
            display.sentence(SOURCE_NOTES[source])
    if comparison.pairs:
        display.line(f"Decided by {len(comparison.pairs)} fresh pairs of launches.")
    if comparison.changed:
        display.line()
        display.line("What was changed:")
        for difference in comparison.changed:
            display.sentence(f"  {difference}", indent="    ")
    display.line()
    title = f"{comparison.new.name} against {comparison.baseline.name}"
    display.table(
        gated_rows(comparison, decision), GATED_COLUMNS, title=title, numeric=NUMERIC_COLUMNS, priorities=PRIORITIES
    )
    for candidate in comparison.candidates:
        rows = figure_rows(candidate)
        if rows:
            display.line()
            display.table(rows, FIGURE_COLUMNS, title=candidate.label, numeric=NUMERIC_COLUMNS, priorities=PRIORITIES)
    for line in failure_lines(comparison):
        display.sentence(line, indent="    ")
    display.sentence(INTERVAL_NOTE)


def _annotate(comparisons: Sequence[Comparison], decisions: Sequence[GateDecision | None]) -> None:
    from autotuner.cli import display
    from autotuner.compare.github import annotation_lines, append_summary
    from autotuner.compare.markdown import comparison_markdown

    for comparison, decision in zip(comparisons, decisions, strict=True):
        for line in annotation_lines(comparison, decision) if decision else ():
            display.line(line)
    append_summary(comparison_markdown(comparisons, decisions))


def _exit_by_gate(comparisons: Sequence[Comparison], decisions: Sequence[GateDecision | None], unclear: str) -> None:
    """Raise where a gate fails: worse before unclear."""
    from autotuner.cli import display
    from autotuner.compare.comparison import headline
    from autotuner.compare.gate import GateState
    from autotuner.errors import GateUnclearError, GateWorseError

    states = [decision.state if decision else GateState.PASSES for decision in decisions]
    for comparison, state in zip(comparisons, states, strict=True):
        if state is GateState.WORSE:
            raise GateWorseError("The gate does not pass.", why=headline(comparison))
    for comparison, state in zip(comparisons, states, strict=True):
        if state is GateState.UNCLEAR:
            error = GateUnclearError(
                "The gate is unclear.",
                why=headline(comparison),
                remedy="Launch both again with --launches 5, raise --tolerance, or let it pass with --unclear pass.",
            )
            if unclear == "fail":
                raise error
            display.warning(str(error))
