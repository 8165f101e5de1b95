"""A comparison as Markdown: a page, the summary of a pipeline's step, or a comment that a bot replaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autotuner.compare.comparison import Comparison, headline
from autotuner.compare.gate import GateDecision
from autotuner.compare.tables import (
    NUMERIC_COLUMNS,
    failure_lines,
    figure_columns,
    figure_rows,
    gated_columns,
    gated_rows,
    interval_note,
)
from autotuner.escaping import for_markdown

COMMENT_LIMIT = 65_536
"""Characters of a comment on GitHub."""

CUT_NOTE = "\n\n*The rest is left out: a comment holds no more.*\n"


def comparison_markdown(comparisons: Sequence[Comparison], decisions: Sequence[GateDecision | None]) -> str:
    """All comparisons, each with its headline, what was changed, gated figures and figures of shared candidates."""
    marker = f"<!-- autotune compare {_comment_safe(comparisons[0].baseline.name)} -->"
    parts = [marker, f"# Against {for_markdown(comparisons[0].baseline.name)}"]
    for comparison, decision in zip(comparisons, decisions, strict=True):
        parts += _comparison_parts(comparison, decision)
    return "\n\n".join([*parts, interval_note(comparisons[0])]) + "\n"


def comment_markdown(text: str) -> str:
    """The Markdown cut at a line to what one comment holds."""
    if len(text) <= COMMENT_LIMIT:
        return text
    return text[: COMMENT_LIMIT - len(CUT_NOTE)].rpartition("\n")[0] + CUT_NOTE


def _comment_safe(text: str) -> str:
    """Text for an HTML comment, which ends at two dashes."""
    return text.replace("--", "- -").replace(">", "")


def _comparison_parts(comparison: Comparison, decision: GateDecision | None) -> list[str]:
    parts = [f"## {for_markdown(comparison.new.name)}", f"**{for_markdown(headline(comparison))}**"]
    sources = {*comparison.baseline.sources, *comparison.new.sources}
    if sources != {"measured"}:
        parts.append(f"> **The figures are {' and '.join(sorted(sources))}: no real engine was measured by them.**")
    if comparison.changed:
        parts.append(_bullets("What was changed:", [str(difference) for difference in comparison.changed]))
    parts.append(_table(gated_columns(comparison), gated_rows(comparison, decision)))
    for candidate in comparison.candidates:
        rows = figure_rows(candidate, comparison.words)
        if rows:
            summary = f"<details><summary>{for_markdown(candidate.label)}</summary>"
            parts.append(f"{summary}\n\n{_table(figure_columns(comparison), rows)}\n\n</details>")
    lines = failure_lines(comparison)
    return [*parts, _bullets("Candidates:", lines)] if lines else parts


def _bullets(heading: str, lines: Sequence[str]) -> str:
    return "\n".join([heading, "", *(f"- {for_markdown(line)}" for line in lines)])


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
    head = "| " + " | ".join(columns) + " |"
    rule = "| " + " | ".join("---:" if column in NUMERIC_COLUMNS else "---" for column in columns) + " |"
    return "\n".join(
        [head, rule, *("| " + " | ".join(for_markdown(row[column]) for column in columns) + " |" for row in rows)]
    )
