"""`autotune command`: the launch command of the winner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from autotuner.cli.load_options import (
    DEFAULT_RUNS_FOLDER,
    JSON_OPTION,
    OUTPUT,
    RUN_ARGUMENT,
    RUNS_FOLDER_OPTION,
    option,
)

if TYPE_CHECKING:
    from autotuner.core import Trial
    from autotuner.errors import UsageError
    from autotuner.experiment import Experiment

TRIAL_OPTIONS = "Selection"


def command(
    run: Annotated[str | None, RUN_ARGUMENT] = None,
    trial: Annotated[
        int | None,
        option("--trial", metavar="N", help="Trial number.", panel=TRIAL_OPTIONS, default="the winner"),
    ] = None,
    format: Annotated[
        str | None,
        option(
            "--format",
            metavar="shell|docker|compose",
            help="Shell command, `docker run`, or Compose file.",
            panel=OUTPUT,
            default="as the run launched it",
        ),
    ] = None,
    port: Annotated[
        int | None,
        option(
            "--port",
            metavar="N",
            help="Port of the server.",
            panel=OUTPUT,
            default="8000; 30000 for sglang",
            min=1,
            max=65535,
        ),
    ] = None,
    output: Annotated[Path, RUNS_FOLDER_OPTION] = DEFAULT_RUNS_FOLDER,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Print the launch command of a run's winner."""
    from autotuner.cli import display
    from autotuner.cli.results import find_trial
    from autotuner.deploy import render, with_port
    from autotuner.engines import engine
    from autotuner.evaluate.launch_script import launch_form, simulation_remark
    from autotuner.report.record import failure_record
    from autotuner.runs.store import RunStore, find_run

    store = RunStore.open(find_run(run, output))
    selected_trial = find_trial(store, trial)
    spec = selected_trial.measurement.spec
    if spec is None:
        raise _no_command_error(selected_trial, store.experiment)
    format = format or launch_form(store.experiment)
    rendered = render(with_port(spec, port or engine(selected_trial.candidate.runtime).default_port), format)
    source = selected_trial.measurement.source
    note = simulation_remark(store.experiment, source)
    if as_json:
        launch = {"trial": selected_trial.number, "source": source, "format": format, "text": rendered}
        display.json(launch | {"note": note or None, "failure": failure_record(selected_trial)})
        return
    if note:
        display.note(note)
    display.text(rendered)


def _no_command_error(trial: Trial, experiment: Experiment) -> UsageError:
    from autotuner.errors import UsageError

    if experiment.deployment.mode == "external":
        return UsageError(
            f"Trial {trial.number} has no launch command.",
            why=f"It was measured on a server that was already running, at {experiment.deployment.url}.",
            remedy="See how that server was started.",
        )
    return UsageError(
        f"Trial {trial.number} has no launch command.",
        why="It ended before its command was made"
        + (f": {trial.measurement.failure.message}" if trial.measurement.failure else "."),
        remedy="Choose another trial with --trial.",
    )
