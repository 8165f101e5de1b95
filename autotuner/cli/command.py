"""`autotune command`: the launch command of the winner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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
SERVERS = "Several servers on one host"


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
    to: Annotated[
        Path | None,
        option(
            "--to",
            metavar="DIR",
            help="Write the files there instead of printing them.",
            panel=OUTPUT,
            default="printed",
        ),
    ] = None,
    replicas: Annotated[
        int | None,
        option("--replicas", metavar="N", help="Servers behind a router.", panel=SERVERS, default="1", min=1),
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
        ),
    ] = None,
    decode: Annotated[
        int | None,
        option("--decode", metavar="N", help="Decode servers.", panel=SERVERS, default="none", min=1),
    ] = None,
    output: Annotated[Path, RUNS_FOLDER_OPTION] = DEFAULT_RUNS_FOLDER,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Print the launch command of a run's winner, or write the files that deploy it."""
    from autotuner.cli import display
    from autotuner.cli.results import find_trial
    from autotuner.deploy import FILE_NAMES, check_format, render_files, with_port
    from autotuner.engines import engine
    from autotuner.evaluate.launch_script import launch_form, several_servers, simulation_remark
    from autotuner.report.record import failure_record
    from autotuner.runs.store import RunStore, find_run
    from autotuner.serving import RoleName, ServingSpec

    store = RunStore.open(find_run(run, output))
    selected_trial = find_trial(store, trial)
    spec = selected_trial.measurement.spec
    if spec is None:
        raise _no_command_error(selected_trial, store.experiment)
    format = format or launch_form(store.experiment)
    port = port or engine(selected_trial.candidate.runtime).default_port
    serving = ServingSpec.single(with_port(spec, port))
    if replicas or prefill or decode:
        _check_counts(replicas, prefill, decode, can_show=as_json or to is not None)
        counts: dict[RoleName, int] = (
            {"server": replicas} if replicas else {"prefill": prefill or 0, "decode": decode or 0}
        )
        check_format(format)
        serving = several_servers(store.experiment, selected_trial.candidate, counts, format, port)
    source = selected_trial.measurement.source
    note = "\n".join(filter(None, (simulation_remark(store.experiment, source), serving.remark)))
    if to is not None:
        written = _write_files(render_files(replace(serving, remark=note), format), to)
    files = render_files(replace(serving, remark=""), format)
    if as_json:
        display.json(
            {
                "trial": selected_trial.number,
                "source": source,
                "format": format,
                "text": files[FILE_NAMES[format]],
                "files": files,
                "note": note or None,
                "failure": failure_record(selected_trial),
            }
        )
        return
    if note:
        display.note(note)
    if to is not None:
        display.note(f"Wrote {', '.join(written)} to {to}.")
    else:
        display.text(files[FILE_NAMES[format]])


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
    if not can_show and (replicas or 2) > 1:
        raise UsageError("Several servers are several files.", remedy="Give --to DIR, or --json.")


def _write_files(files: Mapping[str, str], folder: Path) -> list[str]:
    """Write the files into a folder, which need not exist, scripts as executable; returns their names."""
    from autotuner.errors import UsageError
    from autotuner.redaction import write_redacted

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            path = folder / name
            write_redacted(path, text, "surrogateescape")
            if path.suffix == ".sh":
                path.chmod(0o755)
    except OSError as error:
        raise UsageError(f"Cannot write to {folder}.", why=str(error), remedy="Choose another --to.") from error
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
