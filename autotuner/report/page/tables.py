"""Tables of the page, in the document itself: the same columns and words as in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autotuner.core import Candidate
from autotuner.errors import pluralize
from autotuner.report.forecast_table import FORECAST_TITLE, forecast_table
from autotuner.report.formatting import format_setting
from autotuner.report.frontier import frontier_table, frontier_title
from autotuner.report.page.elements import Element, element
from autotuner.report.refused import RefusedCandidates, group_by_reason
from autotuner.report.run_view import RunView
from autotuner.report.setting_effects import SettingEffect, setting_effects, unmatched_parameters
from autotuner.report.table import Column, Table, ranking_table
from autotuner.scoring.objective import OBJECTIVES

MAX_NAMED_CANDIDATES = 40
"""Candidates that are named for each reason not to launch them."""

MAX_CANDIDATES = 1000
"""Candidates in the table; the run folder has all."""

MAX_ROWS = 1000
"""Rows of that table, one for each load point that a candidate is ranked by."""

MAX_REASONS = 200
"""Reasons for candidates that were not launched."""

MAX_EFFECTS = 100
"""Effects of settings, the largest."""


def candidates(view: RunView) -> Element:
    """The ranking, one group of rows for each candidate, with notes and legends below."""
    table = _with_main_columns_first(ranking_table(view, MAX_CANDIDATES, MAX_ROWS))
    notes = [*table.shared_settings, *table.legends()]
    return element(
        "div",
        _scrolled("candidates, best first", report_table(table, class_="ranking")),
        *(element("p", text, class_="muted") for text in notes),
        _notes(table.notes),
    )


def _with_main_columns_first(table: Table) -> Table:
    """The table with what is said of a whole candidate and the verdict before the figures of its load points."""
    return replace(table, columns=tuple(sorted(table.columns, key=_column_group)))


def _column_group(column: Column) -> int:
    if column.title in ("score", "source"):
        return 3
    return 0 if column.first_row_only else 1 if column.title == "verdict" else 2


def _notes(notes: Sequence[str]) -> Element | None:
    """Why candidates are not feasible, which may be a long list."""
    if not notes:
        return None
    return element(
        "details",
        element("summary", f"Notes on these candidates ({len(notes)})"),
        element("ul", *(element("li", note) for note in notes)),
        open=len(notes) <= 5,
    )


def frontier(view: RunView) -> Element:
    """The frontier as a table; a sentence where it is empty."""
    table = frontier_table(view)
    if not table.rows:
        return element("p", "No load point meets the targets, so there is no frontier.", class_="muted")
    title = f"{frontier_title(view.experiment)}, in output tokens/s/GPU, tokens/s/user and TTFT"
    return element(
        "details",
        element("summary", f"{title}: {len(table.rows)} as a table"),
        _scrolled("Pareto frontier", report_table(table)),
        open=len(table.rows) <= 12,
    )


def report_table(table: Table, class_: str = "") -> Element:
    """A table with a group of rows for each candidate; the winner's is marked."""
    groups: list[list[int]] = []
    for index, row in enumerate(table.rows):
        is_same = bool(groups) and "rank" in row and table.rows[groups[-1][0]]["rank"] == row["rank"]
        if is_same:
            groups[-1].append(index)
        else:
            groups.append([index])
    head = (
        element("th", column.title, scope="col", class_="number" if column.numeric else None)
        for column in table.columns
    )
    return element(
        "table",
        element("thead", element("tr", *head)),
        *(_row_group(table, indices) for indices in groups),
        class_=class_ or None,
    )


def _row_group(table: Table, indices: Sequence[int]) -> Element:
    """The rows of one candidate; what is said of all of them stands in cells over all of them."""
    rows = []
    for index in indices:
        is_first = index == indices[0]
        cells = [
            _cell(column, column.format_cell(table.rows[index]), len(indices) if column.first_row_only else 1)
            for column in table.columns
            if is_first or not column.first_row_only
        ]
        rows.append(element("tr", *cells))
    return element("tbody", *rows, class_="winner" if table.winner_row in indices else None)


def _cell(column: Column, text: str, rows: int) -> Element:
    rowspan = str(rows) if rows > 1 else None
    class_ = "number" if column.numeric else "name" if column.title == "candidate" else None
    content: Element | str = text
    if column.title == "trial" and text:
        content = element("a", text, href=f"#trial={text}")
    elif column.title == "verdict" and text:
        content = element("span", text, class_=f"verdict {text.split()[0]}")
    return element("td", content, class_=class_, rowspan=rowspan)


def effects(view: RunView) -> Element:
    """What each setting is worth, by matched pairs, and which settings cannot be told apart."""
    all_effects = setting_effects(view)
    rows, omitted = all_effects[:MAX_EFFECTS], len(all_effects) - MAX_EFFECTS
    unmatched = unmatched_parameters(view, all_effects)
    objective = OBJECTIVES[view.ranking.objective]
    direction = (
        "lower is better, so a ratio above 1 is less of it" if objective.direction == "min" else "higher is better"
    )
    parts = [
        element(
            "p",
            f"Pairs of candidates that differ in one setting alone: the ratio of {objective.label} ({direction}), "
            "where both meet the targets.",
            class_="muted",
        )
    ]
    if rows:
        titles = ("setting", "change", "median ratio", "range", "pairs", "targets lost", "targets gained")
        head = (element("th", title, scope="col", class_=None if position < 2 else "number")
                for position, title in enumerate(titles))  # fmt: skip
        parts.append(
            _scrolled(
                "effects of settings",
                element(
                    "table",
                    element("thead", element("tr", *head)),
                    element("tbody", *map(_effect_row, rows)),
                ),
            )
        )
    if omitted > 0:
        parts.append(element("p", f"{omitted:,} smaller effects not shown.", class_="muted"))
    if unmatched:
        parts.append(element("p", f"No two candidates differ in nothing but {' or '.join(unmatched)}.", class_="muted"))
    if not rows and not unmatched:
        parts = [element("p", "Only one value of each setting was tried.", class_="muted")]
    return element("div", *parts)


def _effect_row(effect: SettingEffect) -> Element:
    change = f"{format_setting(effect.before)} → {format_setting(effect.after)}"
    ratios = effect.ratios
    cells = (
        "" if effect.median is None else f"{effect.median:.2f}x",
        f"{ratios[0]:.2f} to {ratios[-1]:.2f}" if ratios else "",
        str(len(ratios)),
        str(effect.lost or ""),
        str(effect.gained or ""),
    )
    return element(
        "tr",
        element("td", effect.parameter),
        element("td", change),
        *(element("td", text, class_="number") for text in cells),
    )


def not_launched(view: RunView) -> Element:
    """Candidates that cannot run and those that the search left out, by reason."""
    groups = [
        *_reason_groups("refused before any launch", view.refused),
        *_reason_groups("left out by the search", view.search_report.skipped),
    ]
    forecasts = forecast_table(view)
    predicted = (
        [element("p", f"{FORECAST_TITLE}:"), _scrolled("Predicted layouts", report_table(forecasts))]
        if forecasts.rows
        else []
    )
    count = view.search_report.candidate_count
    is_whole = count is None or len(view.ranking.standings) >= count
    remark = (
        "Every candidate of the search space was launched."
        if is_whole
        else "The search stopped before every candidate of the search space was launched."
    )
    return element("div", *predicted, *(groups or [element("p", remark)]))


def _reason_groups(kind: str, rejected: RefusedCandidates) -> list[Element]:
    groups = sorted(group_by_reason(rejected).items(), key=lambda group: -len(group[1]))
    others = groups[MAX_REASONS:]
    count = sum(len(members) for _, members in others)
    more = [element("p", f"{count:,} more {kind}, for {pluralize(len(others), 'other reason')}")] if others else []
    return [
        element(
            "details",
            element("summary", f"{len(members)} {kind}: {reason}"),
            element(
                "ul",
                *(element("li", _settings(candidate)) for candidate in members[:MAX_NAMED_CANDIDATES]),
                element("li", f"and {len(members) - MAX_NAMED_CANDIDATES} more")
                if len(members) > MAX_NAMED_CANDIDATES
                else None,
            ),
        )
        for reason, members in groups[:MAX_REASONS]
    ] + more


def _settings(candidate: Candidate) -> str:
    return " ".join(f"{name}={format_setting(value)}" for name, value in candidate.parameters.items()) or "defaults"


def _scrolled(label: str, table: Element) -> Element:
    """A table that scrolls sideways within the page, reachable by keyboard."""
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=label)
