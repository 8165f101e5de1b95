"""`autotune command`: what to type to get the winner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotuner.cli.run import RUNS

if TYPE_CHECKING:
    from autotuner.core import Trial
    from autotuner.errors import UsageError
    from autotuner.experiment import Experiment


def command(
    run: Annotated[str | None, typer.Argument(help="Run folder or name; the newest when left out.")] = None,
    trial: Annotated[int | None, typer.Option("--trial", help="This trial instead of the winner.")] = None,
    format: Annotated[
        str | None, typer.Option("--format", help="shell, docker or compose; as it was launched when left out.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Port it listens on.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder that holds the runs.")] = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Print the launch command of a run's winner."""
    from autotuner.cli import display
    from autotuner.cli.results import the_trial
    from autotuner.deploy import render, with_port
    from autotuner.engines import engine
    from autotuner.store import RunStore, find_run
    from autotuner.wire import launch_form, unmeasured

    store = RunStore.open(find_run(run, output))
    chosen = the_trial(store, trial)
    spec = chosen.measurement.spec
    if spec is None:
        raise _without_command(chosen, store.experiment)
    format = format or launch_form(store.experiment)
    rendered = render(with_port(spec, port or engine(chosen.candidate.runtime).default_port), format)
    source = chosen.measurement.source
    remark = unmeasured(store.experiment, source)
    if as_json:
        display.json(
            {"trial": chosen.number, "source": source, "format": format, "text": rendered, "note": remark or None}
        )
        return
    if remark:
        display.note(remark)
    display.text(rendered)


def _without_command(trial: Trial, experiment: Experiment) -> UsageError:
    """Why there is nothing to print."""
    from autotuner.errors import UsageError

    if experiment.deployment.mode == "external":
        return UsageError(
            f"Trial {trial.number} has no launch command.",
            why=f"It was measured on a server that was running already, at {experiment.deployment.url}.",
            remedy="Look at how that server was started.",
        )
    return UsageError(
        f"Trial {trial.number} has no launch command.",
        why="It ended before its command was made"
        + (f": {trial.measurement.failure.said}" if trial.measurement.failure else "."),
        remedy="Choose another trial with --trial.",
    )
