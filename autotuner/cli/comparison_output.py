"""What `autotune compare` prints and writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotuner.compare.comparison import Comparison
    from autotuner.compare.gate import GateDecision

FORMATS = ("table", "markdown", "json", "html")


def show_comparisons(
    comparisons: Sequence[Comparison], decisions: Sequence[GateDecision | None], output_format: str, to: Path | None
) -> None:
    """Print the comparisons in one of FORMATS, or write them to a file and print its path; a page always is one."""
    from autotuner.cli import display
    from autotuner.compare.headline import headline
    from autotuner.compare.page import PAGE_FILE

    if output_format == "table":
        for comparison, decision in zip(comparisons, decisions, strict=True):
            _print(comparison, decision)
    elif to is None and output_format != "html":
        display.text(_rendered(comparisons, decisions, output_format))
    else:
        path = to or Path(PAGE_FILE)
        _write(_rendered(comparisons, decisions, output_format), path)
        for comparison, decision in zip(comparisons, decisions, strict=True):
            display.sentence(headline(comparison, decision))
        display.line(str(path))


def _rendered(comparisons: Sequence[Comparison], decisions: Sequence[GateDecision | None], output_format: str) -> str:
    from autotuner.cli import display

    if output_format == "html":
        from autotuner.compare.page import comparison_page

        return comparison_page(comparisons, decisions)
    if output_format == "markdown":
        from autotuner.compare.markdown import comparison_markdown

        return comparison_markdown(comparisons, decisions)
    from autotuner.compare.record import comparison_record

    records = [comparison_record(each, decision) for each, decision in zip(comparisons, decisions, strict=True)]
    return display.json_text({"comparisons": records})


def _write(text: str, path: Path) -> None:
    from autotuner.errors import UsageError, file_error_reason
    from autotuner.redaction import write_redacted

    try:
        write_redacted(path, text)
    except OSError as error:
        raise UsageError(
            f"The comparison cannot be written to '{path}'.",
            why=file_error_reason(error),
            remedy="Name a file with --to in a folder that exists and can be written.",
        ) from error


def write_gate_files(
    comparisons: Sequence[Comparison],
    decisions: Sequence[GateDecision | None],
    junit: Path | None,
    markdown: Path | None,
) -> None:
    """Write JUnit and the comment, as far as they were asked for."""
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
    from autotuner.compare.headline import headline, pairs_text
    from autotuner.compare.tables import (
        NUMERIC_COLUMNS,
        PRIORITIES,
        failure_lines,
        figure_columns,
        figure_rows,
        gated_columns,
        gated_rows,
        interval_note,
    )
    from autotuner.report.formatting import SOURCE_NOTES

    display.sentence(headline(comparison, decision))
    for source in dict.fromkeys((*comparison.baseline.sources, *comparison.new.sources)):
        if source in SOURCE_NOTES:
            display.sentence(SOURCE_NOTES[source])
    if comparison.pairs:
        display.sentence(pairs_text(comparison))
    if comparison.changed:
        display.line()
        display.line("What was changed:")
        for difference in comparison.changed:
            display.sentence(f"  {difference}", indent="    ")
    display.line()
    title = f"{comparison.new.name} against {comparison.baseline.name}"
    layout: dict[str, Any] = {"numeric": NUMERIC_COLUMNS, "priorities": PRIORITIES}
    display.table(gated_rows(comparison, decision), gated_columns(comparison), title=title, **layout)
    for candidate in comparison.candidates:
        rows = figure_rows(candidate, comparison.words)
        if rows:
            display.line()
            display.table(rows, figure_columns(comparison), title=candidate.label, **layout)
    for line in failure_lines(comparison):
        display.sentence(line, indent="    ")
    display.sentence(interval_note(comparison))


def annotate(comparisons: Sequence[Comparison], decisions: Sequence[GateDecision | None]) -> None:
    """Print annotations for GitHub, and append to the summary of the step."""
    from autotuner.cli import display
    from autotuner.compare.github import annotation_lines, append_summary
    from autotuner.compare.markdown import comparison_markdown

    for comparison, decision in zip(comparisons, decisions, strict=True):
        for line in annotation_lines(comparison, decision) if decision else ():
            display.line(line)
    append_summary(comparison_markdown(comparisons, decisions))
