"""The files that a run leaves behind besides its trials: report, plot, and the winner's launch commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autotuner.core import Trial
from autotuner.deploy import render
from autotuner.evaluate.launch_script import launch_form, simulation_remark
from autotuner.report.launch_commands import launch_commands, printable_spec
from autotuner.report.markdown import markdown_report
from autotuner.report.run_view import RunView
from autotuner.runs.store import RunStore, explain_write_errors, paused_garbage_collection
from autotuner.scoring.rank import Ranking

PLOT_FILE = "pareto.png"
BEST_FILES = {"shell": "command.sh", "docker": "docker.sh", "compose": "compose.yaml"}


@dataclass(frozen=True)
class Result:
    """The result of a run.

    `command` is the winner's launch command on the engine's default port, None without a winner or a
    launch; `remark` says so if the winner was simulated and not measured, and is empty otherwise.
    """

    view: RunView
    path: Path
    command: str | None
    remark: str = ""

    @property
    def ranking(self) -> Ranking:
        return self.view.ranking

    @property
    def trials(self) -> tuple[Trial, ...]:
        return self.view.trials


def write_report(store: RunStore) -> Result:
    """Write the report, the page, the plot and the winner's commands into the run folder."""
    with paused_garbage_collection():
        return _write_report(store)


def _write_report(store: RunStore) -> Result:
    from autotuner.report.page.run_page import write_page
    from autotuner.report.plots import draw_pareto

    view = RunView.from_store(store, summarized=True)
    ranking = view.ranking
    commands = launch_commands(view, ranking.winner)
    shown_command = next(iter(commands.values()), None)
    spec = printable_spec(view, ranking.winner)
    command = render(spec, launch_form(store.experiment)) if spec else None
    remark = simulation_remark(store.experiment, ranking.winner.source) if spec and ranking.winner else ""
    defaults = ranking.defaults if ranking.defaults != ranking.winner else None
    defaults_command = next(iter(launch_commands(view, defaults).values()), None)
    with explain_write_errors(store.path):
        draw_pareto(view, store.path / PLOT_FILE)
    text = markdown_report(view, command=shown_command, defaults_command=defaults_command, picture=PLOT_FILE)
    store.save("report.md", text)
    for command_format, command_text in commands.items():
        store.save(f"best/{BEST_FILES[command_format]}", command_text)
    write_page(store, view)
    return Result(view, store.path, command, remark)
