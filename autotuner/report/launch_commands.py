"""The launch commands of a candidate: as it was measured, and in every other format that it has."""

from __future__ import annotations

from autotuner.core import ServerSpec
from autotuner.deploy import FORMATS, render, with_comment, with_port
from autotuner.engines import engine
from autotuner.evaluate.launch_script import launch_form, simulation_remark
from autotuner.report.run_view import RunView
from autotuner.scoring.rank import Standing


def printable_spec(view: RunView, standing: Standing | None) -> ServerSpec | None:
    """A standing's server spec, as evaluated, on the engine's default port; None without a standing or a launch."""
    if standing is None:
        return None
    spec = next(trial.measurement.spec for trial in view.trials if trial.number == standing.trial_number)
    return with_port(spec, engine(view.experiment.base_runtime).default_port) if spec else None


def launch_commands(view: RunView, standing: Standing | None) -> dict[str, str]:
    """Format -> command, the format it was launched in first; empty for a standing without a launch."""
    spec = printable_spec(view, standing)
    if spec is None or standing is None:
        return {}
    remark = simulation_remark(view.experiment, standing.source)
    launched = launch_form(view.experiment)
    names = [launched, *(name for name in FORMATS if name != launched and (name == "shell" or spec.image))]
    return {name: with_comment(render(spec, name), remark) for name in names}
