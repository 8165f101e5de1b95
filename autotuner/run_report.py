"""The files that a run leaves behind besides its trials: report, plot, and the winner's launch commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autotuner.core import ServerSpec, Trial
from autotuner.deploy import render, with_comment, with_port
from autotuner.engines import engine
from autotuner.evaluate.launch_script import launch_form, simulation_remark
from autotuner.report.markdown import markdown_report
from autotuner.report.run_view import RunView
from autotuner.runs.store import RunStore, explain_write_errors
from autotuner.scoring.rank import Ranking, Standing

PLOT_FILE = "pareto.png"


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
    """Write the report, the plot and the winner's commands into the run folder."""
    from autotuner.report.plots import draw_pareto

    view = RunView.from_store(store)
    ranking = view.ranking
    spec = _printable_spec(view, ranking.winner)
    remark = simulation_remark(store.experiment, ranking.winner.source) if spec and ranking.winner else ""
    command = render(spec, launch_form(store.experiment)) if spec else None
    defaults = ranking.defaults if ranking.defaults != ranking.winner else None
    baseline = _printable_spec(view, defaults)
    with explain_write_errors(store.path):
        draw_pareto(view, store.path / PLOT_FILE)
    shown_command = with_comment(command, remark) if command else None
    defaults_command = None
    if baseline is not None and defaults is not None:
        rendered = render(baseline, launch_form(store.experiment))
        defaults_command = with_comment(rendered, simulation_remark(store.experiment, defaults.source))
    text = markdown_report(view, command=shown_command, defaults_command=defaults_command, picture=PLOT_FILE)
    store.save("report.md", text)
    if spec is not None:
        formats = {"command.sh": "shell"} | ({"docker.sh": "docker", "compose.yaml": "compose"} if spec.image else {})
        for name, command_format in formats.items():
            store.save(f"best/{name}", with_comment(render(spec, command_format), remark))
    return Result(view, store.path, command, remark)


def _printable_spec(view: RunView, standing: Standing | None) -> ServerSpec | None:
    """A standing's server spec, as evaluated, on the engine's default port; None without a standing or a launch."""
    if standing is None:
        return None
    spec = next(trial.measurement.spec for trial in view.trials if trial.number == standing.trial_number)
    return with_port(spec, engine(view.experiment.base_runtime).default_port) if spec else None
