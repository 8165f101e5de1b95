"""A run's result as a Markdown page."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.core import Trial
from autotuner.experiment import Experiment
from autotuner.report.candidate_names import CandidateNames
from autotuner.report.formatting import source_note
from autotuner.report.frontier import frontier_table, frontier_title
from autotuner.report.objective_text import objective_line, objective_value_text
from autotuner.report.refused import RefusedCandidates, reason_lines, refusal_heading
from autotuner.report.search_summary import search_sentences, skipped_lines
from autotuner.report.table import Table, ranking_table
from autotuner.scoring.rank import Ranking
from autotuner.search.protocol import SearchReport


def markdown_report(
    ranking: Ranking,
    trials: Sequence[Trial],
    experiment: Experiment,
    *,
    command: str | None = None,
    defaults_command: str | None = None,
    picture: str | None = None,
    refused: RefusedCandidates = (),
    search_report: SearchReport | None = None,
) -> str:
    """Winner, table, notes and frontier; optionally launch commands, plot, refused candidates and search summary."""
    parts = [f"# {_escape(experiment.task_name)}", _winner_paragraph(ranking, experiment)]
    note = source_note(ranking)
    if note:
        parts.append(f"> **{note}**")
    if picture:
        parts.append(f"![Output throughput per GPU against interactivity]({picture})")
    table = ranking_table(ranking, trials, experiment)
    parts.append(table_markdown(table))
    note_lines = [f"- {_escape(text)}" for text in (*table.shared_settings, *table.notes) if text != note]
    if note_lines:
        parts.append("\n".join(note_lines))
    parts += map(_escape, [*table.legends(), objective_line(experiment)])
    frontier = frontier_table(trials, experiment)
    if frontier.rows:
        parts += [f"{frontier_title(experiment)}:", table_markdown(frontier)]
    if search_report is not None:
        parts.append(
            "\n".join(f"- {_escape(text)}" for text in search_sentences(ranking, trials, experiment, search_report))
        )
        if search_report.skipped:
            lines = [f"- {_escape(line)}" for line in skipped_lines(search_report, experiment)]
            parts.append(f"Not launched ({len(search_report.skipped)} in total):\n\n" + "\n".join(lines))
    if refused:
        lines = [refusal_heading(refused), *(f"- {_escape(line)}" for line in reason_lines(refused, experiment))]
        parts.append(lines[0] + "\n\n" + "\n".join(lines[1:]))
    for owner, text in (("the winner", command), ("the engine's defaults", defaults_command)):
        if text:
            fence = "```" if "```" not in text else "````"
            parts.append(f"Launch command of {owner}:\n\n{fence}sh\n{text.rstrip()}\n{fence}")
    return "\n\n".join(parts) + "\n"


def table_markdown(table: Table) -> str:
    """A table in Markdown, the winner's row in bold."""
    lines = [
        "| " + " | ".join(table.titles) + " |",
        "| " + " | ".join("---:" if column.numeric else "---" for column in table.columns) + " |",
    ]
    for index, row in enumerate(table.cell_texts()):
        cells = [_escape(row[title]) for title in table.titles]
        if index == table.winner_row:
            cells = [f"**{cell}**" if cell else "" for cell in cells]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _winner_paragraph(ranking: Ranking, experiment: Experiment) -> str:
    winner = ranking.winner
    count = len(ranking.standings)
    tried = f"{count} candidate{'' if count == 1 else 's'} of {_escape(experiment.model.id_or_path)} tried"
    if winner is None:
        return f"{tried}; none can be recommended."
    scope = (
        f" at {winner.load_point}"
        if winner.load_point
        else f", geometric mean over {len(winner.load_points)} load points"
    )
    value_text = objective_value_text(ranking.objective, winner.value, ranking.unit, winner.interval)
    name = CandidateNames.from_ranking(ranking).full_name(winner.candidate)
    return f"{tried}. Best: **{_escape(value_text)}**{scope}, {_escape(name)}, {winner.source}, {winner.verdict}."


def _escape(text: str) -> str:
    """Escape Markdown markup and join lines, so that text fits a table cell."""
    for character in "\\|*_`<>[]":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
