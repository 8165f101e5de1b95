"""A run's result as a markdown page."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.core import Trial
from autotuner.experiment import Experiment
from autotuner.report.candidate_names import Names
from autotuner.report.formatting import source_note
from autotuner.report.frontier import frontier, frontier_title
from autotuner.report.objective_text import achieved, objective_line
from autotuner.report.refused import Refused, heading, reasons
from autotuner.report.search_summary import left_out, sentences
from autotuner.report.table import Table, rows
from autotuner.scoring.rank import Ranking
from autotuner.search.account import Account


def markdown(
    ranking: Ranking,
    trials: Sequence[Trial],
    experiment: Experiment,
    *,
    command: str | None = None,
    defaults_command: str | None = None,
    picture: str | None = None,
    refused: Refused = (),
    account: Account | None = None,
) -> str:
    """Winner, table, notes, frontier; with launch commands, the picture, what was refused, the search."""
    parts = [f"# {_escaped(experiment.task_name)}", _summary(ranking, experiment)]
    note = source_note(ranking)
    if note:
        parts.append(f"> **{note}**")
    if picture:
        parts.append(f"![Output throughput per GPU against interactivity]({picture})")
    table = rows(ranking, trials, experiment)
    parts.append(table_markdown(table))
    listed = [f"- {_escaped(text)}" for text in (*table.shared, *table.notes) if text != note]
    if listed:
        parts.append("\n".join(listed))
    parts += map(_escaped, [*table.legends(), objective_line(experiment)])
    front = frontier(trials, experiment)
    if front.rows:
        parts += [f"{frontier_title(experiment)}:", table_markdown(front)]
    if account is not None:
        parts.append("\n".join(f"- {_escaped(text)}" for text in sentences(ranking, trials, experiment, account)))
        if account.skipped:
            lines = [f"- {_escaped(line)}" for line in left_out(account, experiment)]
            parts.append(f"Not launched, {len(account.skipped)} in all:\n\n" + "\n".join(lines))
    if refused:
        lines = [heading(refused), *(f"- {_escaped(line)}" for line in reasons(refused, experiment))]
        parts.append(lines[0] + "\n\n" + "\n".join(lines[1:]))
    for whose, text in (("the winner", command), ("the engine's defaults", defaults_command)):
        if text:
            fence = "```" if "```" not in text else "````"
            parts.append(f"Launch command of {whose}:\n\n{fence}sh\n{text.rstrip()}\n{fence}")
    return "\n\n".join(parts) + "\n"


def table_markdown(table: Table) -> str:
    """A table in pipes, the winner's row in bold."""
    lines = [
        "| " + " | ".join(table.titles) + " |",
        "| " + " | ".join("---:" if column.right else "---" for column in table.columns) + " |",
    ]
    for index, row in enumerate(table.texts()):
        cells = [_escaped(row[title]) for title in table.titles]
        if index == table.winner:
            cells = [f"**{cell}**" if cell else "" for cell in cells]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _summary(ranking: Ranking, experiment: Experiment) -> str:
    winner = ranking.winner
    count = len(ranking.standings)
    tried = f"{count} candidate{'' if count == 1 else 's'} of {_escaped(experiment.model.id_or_path)} tried"
    if winner is None:
        return f"{tried}; none can be recommended."
    where = (
        f" at {winner.load_point}"
        if winner.load_point
        else f", geometric mean over {len(winner.load_points)} load points"
    )
    figure = achieved(ranking.objective, winner.value, ranking.unit, winner.interval)
    return (
        f"{tried}. Best: **{_escaped(figure)}**{where}, {_escaped(Names.ranked(ranking).named(winner.candidate))}, "
        f"{winner.source}, {winner.verdict}."
    )


def _escaped(text: str) -> str:
    """Text that starts no markup and stays in its cell."""
    for character in "\\|*_`<>[]":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
