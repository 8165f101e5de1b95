"""`autotune command`: the launch command of the winner."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from autotuner.cli.cluster_options import ClusterOptionSet
from autotuner.cli.load_options import (
    DEFAULT_RUNS_FOLDER,
    JSON_OPTION,
    OUTPUT,
    RUN_ARGUMENT,
    RUNS_FOLDER_OPTION,
    option,
)
from autotuner.cli.option_sets import with_option_sets

if TYPE_CHECKING:
    from autotuner.core import Trial
    from autotuner.errors import UsageError
    from autotuner.evaluate.launch_files import DeployedCandidate
    from autotuner.experiment import Experiment
    from autotuner.runs.store import RunStore
    from autotuner.serving import RoleName

TRIAL_OPTIONS = "Selection"
SERVERS = "Several servers on one host"

MAX_SERVERS = 1_000
"""Each has GPUs, a port and a part of the files that are written."""


@with_option_sets
def command(
    *,
    run: Annotated[str | None, RUN_ARGUMENT] = None,
    trial: Annotated[
        int | None,
        option("--trial", metavar="N", help="Trial number.", panel=TRIAL_OPTIONS, default="the winner"),
    ] = None,
    format: Annotated[
        str | None,
        option(
            "--format",
            metavar="FORMAT",
            help="shell, docker, compose; kubernetes, ome, dynamo: manifests; engine: the engine's own configuration"
            " file.",
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
    to: Annotated[
        Path | None,
        option(
            "--to",
            metavar="DIR",
            help="Write the files there, with all that it takes to repeat the measurement, instead of printing them.",
            panel=OUTPUT,
            default="printed",
        ),
    ] = None,
    replicas: Annotated[
        int | None,
        option(
            "--replicas",
            metavar="N",
            help="Servers behind a router.",
            panel=SERVERS,
            default="1",
            min=1,
            max=MAX_SERVERS,
        ),
    ] = None,
    prefill: Annotated[
        int | None,
        option(
            "--prefill",
            metavar="N",
            help="Prefill servers, which hand over to those of --decode.",
            panel=SERVERS,
            default="none",
            min=1,
            max=MAX_SERVERS,
        ),
    ] = None,
    decode: Annotated[
        int | None,
        option("--decode", metavar="N", help="Decode servers.", panel=SERVERS, default="none", min=1, max=MAX_SERVERS),
    ] = None,
    cluster: ClusterOptionSet,
    output: Annotated[Path, RUNS_FOLDER_OPTION] = DEFAULT_RUNS_FOLDER,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Print the launch command of a run's winner, or write the files that deploy it."""
    from autotuner.cli import display
    from autotuner.cli.results import find_trial
    from autotuner.deploy import FORMATS
    from autotuner.evaluate.launch_files import check_launch_format, default_format, launch_files
    from autotuner.report.record import failure_record
    from autotuner.runs.store import RunStore, find_run

    store = RunStore.open(find_run(run, output))
    selected_trial = find_trial(store, trial)
    experiment = cluster.applied_to(store.experiment)
    format = format or default_format(experiment)
    check_launch_format(format)
    _check_counts(replicas, prefill, decode, can_show=as_json or to is not None or format not in FORMATS)
    launch = _deployed_candidate(experiment, selected_trial, format, port, _counts(replicas, prefill, decode))
    if to is not None:
        written = _write_files(_package(launch, format, selected_trial, store), to)
    files = launch_files(launch, format, with_remark=False)
    text = next(iter(files.values()))
    if as_json:
        display.json(
            {
                "trial": selected_trial.number,
                "source": selected_trial.measurement.source,
                "format": format,
                "text": text,
                "files": files,
                "note": launch.remark or None,
                "failure": failure_record(selected_trial),
            }
        )
        return
    if launch.remark:
        display.note(launch.remark)
    if to is not None:
        display.note(f"Wrote {', '.join(written)} to {to}.")
    else:
        display.text(text)


def _counts(replicas: int | None, prefill: int | None, decode: int | None) -> dict[RoleName, int]:
    """Servers by role where several were asked for; empty for one server."""
    if replicas:
        return {"server": replicas}
    return {"prefill": prefill, "decode": decode} if prefill and decode else {}


def _deployed_candidate(
    experiment: Experiment, trial: Trial, format: str, port: int | None, counts: Mapping[RoleName, int]
) -> DeployedCandidate:
    """The trial's launch at the port; UsageError for a trial that launched nothing."""
    from autotuner.deploy import with_port
    from autotuner.engines import engine
    from autotuner.evaluate.launch_files import DeployedCandidate

    spec = trial.measurement.spec
    if spec is None:
        raise _no_command_error(trial, experiment)
    server = with_port(spec, port or engine(trial.candidate.runtime).default_port)
    return DeployedCandidate.of_trial(experiment, trial, server, format, counts)


def _package(launch: DeployedCandidate, format: str, trial: Trial, store: RunStore) -> dict[str, str]:
    """The files of the launch and those that it takes to repeat it, without the secrets that are known."""
    from autotuner.evaluate.launch_files import launch_files
    from autotuner.evaluate.launch_package import package_files
    from autotuner.input_files import read_text
    from autotuner.redaction import redact
    from autotuner.runs.store import EXPERIMENT_FILE

    files = package_files(
        launch,
        format,
        launch_files(launch, format, with_remark=True),
        trial=trial,
        experiment=read_text(store.path / EXPERIMENT_FILE),
        hosts=store.environments(),
    )
    return {name: redact(text) for name, text in files.items()}


def _check_counts(replicas: int | None, prefill: int | None, decode: int | None, *, can_show: bool) -> None:
    from autotuner.errors import UsageError

    if replicas and (prefill or decode):
        raise UsageError(
            "--replicas does not go with --prefill and --decode.",
            why="Replicas serve whole requests.",
            remedy="Leave out one or the other.",
        )
    if bool(prefill) != bool(decode):
        raise UsageError(
            f"--{'prefill' if prefill else 'decode'} alone deploys nothing that answers.",
            remedy="Give both --prefill and --decode.",
        )
    if not can_show and ((replicas or 1) > 1 or prefill):
        raise UsageError("Several servers are several files.", remedy="Give --to DIR, or --json.")


def _write_files(files: Mapping[str, str], folder: Path) -> list[str]:
    """Write the files into a folder, which need not exist, scripts as executable; returns their names."""
    from autotuner.errors import UsageError, file_error_reason
    from autotuner.redaction import write_redacted

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            path = folder / name
            write_redacted(path, text, "surrogateescape")
            if path.suffix == ".sh":
                path.chmod(0o755)
    except OSError as error:
        raise UsageError(
            f"Cannot write to {folder}.", why=file_error_reason(error), remedy="Choose another --to."
        ) from error
    return list(files)


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
