"""The files that a run leaves behind besides its trials: report, plot, and the winner's launch commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autotuner.core import Candidate, ServerSpec, Trial
from autotuner.deploy import render, with_comment, with_port
from autotuner.engines import engine
from autotuner.evaluate.launch_script import launch_form, simulation_remark
from autotuner.experiment import Experiment
from autotuner.report.markdown import markdown_report
from autotuner.runs.store import RunStore, explain_write_errors
from autotuner.scoring.rank import Ranking, Standing
from autotuner.search.protocol import EMPTY_REPORT, SearchReport

PLOT_FILE = "pareto.png"


@dataclass(frozen=True)
class Result:
    """The result of a run.

    `command` is the winner's launch command on the engine's default port, None without a winner or a
    launch; `remark` says so if the winner was simulated and not measured, and is empty otherwise.
    """

    ranking: Ranking
    trials: tuple[Trial, ...]
    path: Path
    command: str | None
    refused: tuple[tuple[Candidate, str], ...] = ()
    search_report: SearchReport = EMPTY_REPORT
    remark: str = ""


def write_report(store: RunStore, ranking: Ranking) -> Result:
    """Write the report, the plot and the winner's commands into the run folder."""
    from autotuner.report.plots import draw_pareto

    trials = tuple(store.trials())
    spec = _printable_spec(store.experiment, ranking.winner, trials)
    remark = simulation_remark(store.experiment, ranking.winner.source) if spec and ranking.winner else ""
    command = render(spec, launch_form(store.experiment)) if spec else None
    defaults = ranking.defaults if ranking.defaults != ranking.winner else None
    baseline = _printable_spec(store.experiment, defaults, trials)
    with explain_write_errors(store.path):
        draw_pareto(trials, store.experiment, ranking, store.path / PLOT_FILE)
    refused = tuple(store.load_refused())
    search_report = SearchReport(*store.load_search())
    shown_command = with_comment(command, remark) if command else None
    defaults_command = None
    if baseline is not None and defaults is not None:
        rendered = render(baseline, launch_form(store.experiment))
        defaults_command = with_comment(rendered, simulation_remark(store.experiment, defaults.source))
    text = markdown_report(
        ranking,
        trials,
        store.experiment,
        command=shown_command,
        defaults_command=defaults_command,
        picture=PLOT_FILE,
        refused=refused,
        search_report=search_report,
    )
    store.save("report.md", text)
    if spec is not None:
        formats = {"command.sh": "shell"} | ({"docker.sh": "docker", "compose.yaml": "compose"} if spec.image else {})
        for name, command_format in formats.items():
            store.save(f"best/{name}", with_comment(render(spec, command_format), remark))
    return Result(ranking, trials, store.path, command, refused, search_report, remark)


def _printable_spec(experiment: Experiment, standing: Standing | None, trials: Sequence[Trial]) -> ServerSpec | None:
    """A standing's server spec, as evaluated, on the engine's default port; None without a standing or a launch."""
    if standing is None:
        return None
    spec = next(trial.measurement.spec for trial in trials if trial.number == standing.trial_number)
    return with_port(spec, engine(experiment.base_runtime).default_port) if spec else None
