"""A run's result as a Markdown page."""

from __future__ import annotations

from autotuner.escaping import for_markdown, markdown_fence
from autotuner.report.environment_text import environment_lines
from autotuner.report.forecast_table import FORECAST_TITLE, forecast_table
from autotuner.report.formatting import source_note
from autotuner.report.frontier import frontier_table, frontier_title
from autotuner.report.objective_text import objective_line, objective_value_text
from autotuner.report.refused import reason_lines, refusal_heading
from autotuner.report.run_view import RunView
from autotuner.report.search_summary import search_sentences
from autotuner.report.summary import common_failure_sentence
from autotuner.report.table import Table, ranking_table

MAX_CANDIDATES = 200
"""Candidates in the table; CSV and JSON have all."""

MAX_ROWS = 500
"""Rows of the table, one for each load point that a candidate is ranked by."""

MAX_REASONS = 200
"""Reasons for candidates that were not launched."""


def markdown_report(
    view: RunView, *, command: str | None = None, defaults_command: str | None = None, picture: str | None = None
) -> str:
    """Winner, table, notes, frontier, search summary, refused candidates and environment; optionally plot, commands."""
    experiment = view.experiment
    parts = [f"# {for_markdown(experiment.task_name)}", _winner_paragraph(view)]
    note = source_note(view.ranking)
    if note:
        parts.append(f"> **{for_markdown(note)}**")
    if picture:
        parts.append(f"![Output throughput per GPU against interactivity]({picture})")
    table = ranking_table(view, MAX_CANDIDATES, MAX_ROWS)
    parts.append(table_markdown(table))
    notes = [text for text in (*table.shared_settings, *table.notes) if text != note]
    if notes:
        parts.append(_bullets(notes))
    parts += map(for_markdown, [*table.legends(), objective_line(experiment)])
    frontier = frontier_table(view)
    if frontier.rows:
        parts += [f"{for_markdown(frontier_title(experiment))}:", table_markdown(frontier)]
        parts += [_bullets(list(frontier.notes))] if frontier.notes else []
    parts.append(_bullets(search_sentences(view)))
    forecasts = forecast_table(view)
    if forecasts.rows:
        parts += [f"{for_markdown(FORECAST_TITLE)}:", table_markdown(forecasts)]
    skipped = view.search_report.skipped
    for heading, lines in (
        (f"Not launched ({len(skipped)} in total):", reason_lines(skipped, experiment, MAX_REASONS)),
        (refusal_heading(view.refused), reason_lines(view.refused, experiment, MAX_REASONS)),
        ("Environment:", environment_lines(view)),
    ):
        parts += [for_markdown(heading), _bullets(lines)] if lines else []
    for owner, text in (("the winner", command), ("the engine's defaults", defaults_command)):
        if text:
            fence = markdown_fence(text)
            parts.append(f"Launch command of {owner}:\n\n{fence}sh\n{text.rstrip()}\n{fence}")
    return "\n\n".join(parts) + "\n"


def table_markdown(table: Table) -> str:
    """A table in Markdown, the winner's row in bold."""
    lines = [
        "| " + " | ".join(map(for_markdown, table.titles)) + " |",
        "| " + " | ".join("---:" if column.numeric else "---" for column in table.columns) + " |",
    ]
    for index, row in enumerate(table.cell_texts()):
        cells = [for_markdown(row[title]) for title in table.titles]
        if index == table.winner_row:
            cells = [f"**{cell}**" if cell else "" for cell in cells]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _winner_paragraph(view: RunView) -> str:
    ranking, winner = view.ranking, view.ranking.winner
    count = len(ranking.standings)
    tried = f"{count} candidate{'' if count == 1 else 's'} of {for_markdown(view.experiment.model.id_or_path)} tried"
    if winner is None:
        common_failure = common_failure_sentence(view)
        return f"{tried}; none can be recommended." + (f" **{for_markdown(common_failure)}**" if common_failure else "")
    scope = (
        f" at {for_markdown(str(winner.load_point))}"
        if winner.load_point
        else f", geometric mean over {len(winner.load_points)} load points"
    )
    value_text = objective_value_text(ranking.objective, winner.value, ranking.unit, winner.interval)
    name = for_markdown(view.names.full_name(winner.candidate))
    return f"{tried}. Best: **{for_markdown(value_text)}**{scope}, {name}, {winner.source}, {winner.verdict}."


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {for_markdown(line)}" for line in lines)
