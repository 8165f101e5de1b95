"""The tables of a comparison, as rows of text that the terminal and Markdown share."""

from __future__ import annotations

from autotuner.compare.compared_run import RunWords
from autotuner.compare.comparison import CandidateChange, Comparison, GatedFigure, change_text
from autotuner.compare.gate import GateDecision
from autotuner.report.formatting import format_load, format_number

NUMERIC_COLUMNS = ("baseline", "new", "change", "launches", "load tests")
PRIORITIES = {"launches": 3, "load tests": 3, "unit": 2}
"""Columns that a narrow terminal leaves out first."""


def gated_columns(comparison: Comparison) -> tuple[str, ...]:
    """The columns of `gated_rows`."""
    return ("figure", "unit", "baseline", "new", "change", comparison.words.repetitions, "verdict")


def figure_columns(comparison: Comparison) -> tuple[str, ...]:
    """The columns of `figure_rows`."""
    return ("load", "figure", "baseline", "new", "change", comparison.words.repetitions, "verdict")


def interval_note(comparison: Comparison) -> str:
    """What the intervals are, and of what."""
    unit = comparison.words.repetition
    return f"Changes with 90% intervals, of which each end holds with 95%; the unit of repetition is the {unit}."


def gated_rows(comparison: Comparison, decision: GateDecision | None = None) -> list[dict[str, str]]:
    """A row for each gated figure; with a decision its verdict is the gate's."""
    states = dict(enumerate(state for _, state in decision.figures)) if decision else {}
    return [
        {**_gated_cells(figure, comparison.words), "verdict": str(states.get(index, figure.change))}
        for index, figure in enumerate(comparison.gated)
    ]


def _gated_cells(figure: GatedFigure, words: RunWords) -> dict[str, str]:
    is_share = figure.name.startswith("attainment")
    values = {"baseline": figure.baseline, "new": figure.new}
    texts = {name: _percent(value) if is_share else format_number(value) for name, value in values.items()}
    change = "" if figure.value_ratio is None else change_text(figure.value_ratio, figure.value_interval)
    return {"figure": figure.name, "unit": figure.unit, **texts, "change": change, words.repetitions: _launches(figure)}


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _launches(figure: GatedFigure) -> str:
    return f"{figure.ratio.baseline_launches}/{figure.ratio.new_launches}" if figure.ratio else ""


def figure_rows(candidate: CandidateChange, words: RunWords) -> list[dict[str, str]]:
    """A row for each figure of a candidate, with the load only where it changes."""
    rows: list[dict[str, str]] = []
    several_scenarios = len({each.load_point.scenario for each in candidate.figures}) > 1
    previous = None
    for each in candidate.figures:
        load = str(each.load_point) if several_scenarios else format_load(each.load_point)
        rows.append(
            {
                "load": "" if each.load_point == previous else load,
                "figure": f"{each.figure.title} {each.figure.unit}".strip(),
                "baseline": format_number(each.baseline),
                "new": format_number(each.new),
                "change": change_text(each.ratio.value, each.ratio.interval),
                words.repetitions: f"{each.ratio.baseline_launches}/{each.ratio.new_launches}",
                "verdict": str(each.change),
            }
        )
        previous = each.load_point
    return rows


def failure_lines(comparison: Comparison) -> list[str]:
    """Failures that appeared or went, and candidates that only one side launched."""
    lines = []
    for each in comparison.candidates:
        if each.new_failure and not each.baseline_failure:
            lines.append(f"{each.label} fails now: {each.new_failure}")
        elif each.baseline_failure and not each.new_failure:
            lines.append(f"{each.label} no longer fails ({each.baseline_failure})")
    for heading, candidates in (
        (f"only in {comparison.baseline.name}", comparison.only_in_baseline),
        (f"only in {comparison.new.name}", comparison.only_in_new),
    ):
        lines += [f"{heading}: {candidate.settings}" for candidate in candidates[:MAX_LISTED]]
        if len(candidates) > MAX_LISTED:
            lines.append(f"{heading}: {len(candidates) - MAX_LISTED} more")
    return lines


MAX_LISTED = 8
"""Candidates of one side alone that are named."""
