"""Comparisons as one HTML page: the verdict, what was changed, each figure against the tolerance, both frontiers.

All of it is in the document, and the page has no script; the data are in it for programs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from autotuner import __version__
from autotuner.compare.changes import Change
from autotuner.compare.comparison import Comparison, headline
from autotuner.compare.forest_plot import CHANGE_SIGNS, ForestRow, forest_plot, forest_rows
from autotuner.compare.frontier_overlay import frontier_overlays
from autotuner.compare.gate import GateDecision, GateState
from autotuner.compare.record import comparison_record
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
from autotuner.report.page.document import html_document
from autotuner.report.page.elements import Element, element
from autotuner.report.page.verdict import BADGES

PAGE_FILE = "comparison.html"
MAX_FOREST_ROWS = 120
"""Rows of one forest plot; the table of pairs has all figures."""

GATE_TEXTS = {
    GateState.PASSES: "▲ The gate passes.",
    GateState.WORSE: "▼ The gate does not pass.",
    GateState.UNCLEAR: "? The gate does not decide.",
}


def comparison_page(comparisons: Sequence[Comparison], decisions: Sequence[GateDecision | None]) -> str:
    """All comparisons with one baseline as one file."""
    pairs = list(zip(comparisons, decisions, strict=True))
    sources = _sources(comparisons)
    others = [source for source in sources if source != "measured"]
    names = ", ".join(comparison.new.name for comparison in comparisons)
    source_text = f" ({' and '.join(others)})" if others else ""
    title = f"{names} against {comparisons[0].baseline.name}{source_text} - autotune"
    body = [
        _head(comparisons, sources),
        element("main", *(part for comparison, decision in pairs for part in _sections(comparison, decision))),
        element("footer", element("p", f"autotune {__version__}. {interval_note(comparisons[0])}", class_="muted")),
    ]
    data = {"comparisons": [comparison_record(comparison, decision) for comparison, decision in pairs]}
    return html_document(title, body, data, scripts=())


def _sources(comparisons: Sequence[Comparison]) -> list[str]:
    sides = [side for comparison in comparisons for side in (comparison.baseline, comparison.new)]
    return list(dict.fromkeys(source for side in sides for source in side.sources))


def _head(comparisons: Sequence[Comparison], sources: Sequence[str]) -> Element:
    baseline = comparisons[0].baseline
    facts = [
        baseline.experiment.model.id_or_path,
        ", ".join(baseline.experiment.benchmark.traffic_scenarios),
        f"tolerance {comparisons[0].tolerance:.1%}",
    ]
    badge = " / ".join(BADGES[source] for source in sources)
    return element(
        "header",
        element("div", element("h1", f"Against {baseline.name}"), element("p", " · ".join(facts), class_="muted")),
        element("p", badge, class_=f"badge {'measured' if badge == BADGES['measured'] else 'not-measured'}"),
    )


def _sections(comparison: Comparison, decision: GateDecision | None) -> list[Element]:
    rows = forest_rows(comparison)
    overlays = frontier_overlays(comparison)
    sections = [
        element("section", _card(comparison, decision, rows)),
        element("section", element("h2", "What was changed"), _changes(comparison)),
        element("section", element("h2", "Each figure against the tolerance"), *_forest(rows, comparison)),
    ]
    if overlays:
        charts = element("div", *overlays, class_="columns")
        sections.append(element("section", element("h2", "Both frontiers"), charts))
    sections.append(element("section", element("h2", "All figures"), *_figure_tables(comparison)))
    return sections


def _card(comparison: Comparison, decision: GateDecision | None, rows: Sequence[ForestRow]) -> Element:
    notes = [SOURCE_NOTES[source] for source in _sources([comparison]) if source in SOURCE_NOTES]
    if comparison.pairs:
        notes.append(f"Decided by {len(comparison.pairs)} fresh pairs of {comparison.words.repetitions}.")
    counts = Counter(row.change for row in rows)
    counted = ", ".join(f"{CHANGE_SIGNS[change]} {counts[change]} {change}" for change in Change if counts[change])
    state = element("p", GATE_TEXTS[decision.state], class_=f"gain change {decision.state}") if decision else None
    return element(
        "div",
        element(
            "div",
            element("p", f"{comparison.new.name} against {comparison.baseline.name}", class_="muted"),
            element("h2", headline(comparison)),
            state,
            element("p", f"Of {len(rows)} figures: {counted}.") if rows else None,
            *(element("p", note) for note in notes),
        ),
        _table("gated figures", gated_columns(comparison), gated_rows(comparison, decision), class_="wrap"),
        class_="card compared",
    )


def _changes(comparison: Comparison) -> Element:
    rows = [{"setting or fact": d.name, "baseline": d.baseline, "new": d.new} for d in comparison.changed]
    if not rows:
        return element("p", "Nothing that the runs record: settings and environment are the same.", class_="muted")
    return _table("what was changed", ("setting or fact", "baseline", "new"), rows, class_="wrap", numeric=())


def _forest(rows: Sequence[ForestRow], comparison: Comparison) -> list[Element]:
    if not rows:
        return [element("p", "No figure was measured on both sides.", class_="muted")]
    shown = rows[:MAX_FOREST_ROWS]
    note = (
        f"Dots are new / baseline, lines their 90% intervals, the band changes of up to {comparison.tolerance:.1%}. "
        "Right of the middle is more, which is better of throughput and goodput and worse of latencies."
    )
    left_out = f" The first {len(shown)} of {len(rows)} figures; all are below." if len(rows) > len(shown) else ""
    return [element("p", note + left_out, class_="muted"), forest_plot(shown, comparison.tolerance)]


def _figure_tables(comparison: Comparison) -> Iterable[Element]:
    tables = [(each.label, figure_rows(each, comparison.words)) for each in comparison.candidates]
    shown = [(label, rows) for label, rows in tables if rows]
    for label, rows in shown:
        table = _table(label, figure_columns(comparison), rows)
        yield element("details", element("summary", label), table, open=len(shown) == 1)
    lines = failure_lines(comparison)
    if lines:
        yield element("ul", *(element("li", line) for line in lines))
    if not shown and not lines:
        yield element("p", "Neither side has a candidate with figures.", class_="muted")


def _table(
    label: str,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    *,
    class_: str | None = None,
    numeric: Sequence[str] = NUMERIC_COLUMNS,
) -> Element:
    """A table that scrolls sideways within the page."""
    classes = {column: _column_class(column, numeric) for column in columns}
    head = (element("th", column, scope="col", class_=classes[column]) for column in columns)
    body = (element("tr", *(_cell(column, row[column], classes[column]) for column in columns)) for row in rows)
    table = element("table", element("thead", element("tr", *head)), element("tbody", *body), class_=class_)
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=label)


def _column_class(column: str, numeric: Sequence[str]) -> str | None:
    names = [*(["number"] if column in numeric else []), *(["secondary"] if column in PRIORITIES else [])]
    return " ".join(names) or None


def _cell(column: str, text: str, class_: str | None) -> Element:
    if column == "verdict":
        return element("td", element("span", text, class_=f"change {text}"))
    return element("td", text, class_=class_)
