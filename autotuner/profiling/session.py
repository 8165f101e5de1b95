"""An SLA profile from its request to its files; the command line and Python both start here."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from autotuner.core import Observer, ignore_progress
from autotuner.engines.environment import check_secrets
from autotuner.errors import ConfigError, NoFeasibleError, file_error_reason
from autotuner.input_files import read_json
from autotuner.launchers import orphans
from autotuner.profiling.artefacts import LOG_FILE, SLA_FILE, remove_planner_files, write_artefacts
from autotuner.profiling.manifests import dynamo_deployment, runs_on_dynamo, write_manifests
from autotuner.profiling.mappings import ForbiddenMapping, ParallelMapping, mapping_named
from autotuner.profiling.outcome import ProfileOutcome
from autotuner.profiling.record import ProfileRecord
from autotuner.profiling.request import SlaRequest
from autotuner.profiling.sweep import SkippedMapping, Sweep, SweepResult
from autotuner.profiling.workers import WorkerSetup, compose_experiment
from autotuner.redaction import redact

log = logging.getLogger(__name__)


def prepare(request: SlaRequest, *, origin: str = "") -> WorkerSetup:
    """The engine, experiment and mappings of a profile; AutotuneError if request or machine forbid it.

    With a URL the request's model becomes the one that the server reports.
    """
    experiment = compose_experiment(request, origin=origin).experiment
    check_secrets(experiment.parameters, experiment.runtime)
    return WorkerSetup(replace(request, model=experiment.model.id_or_path), experiment)


def profile(
    setup: WorkerSetup, output: Path, *, accept_nearest: bool = False, observe: Observer = ignore_progress
) -> ProfileOutcome:
    """Profile into the folder `output`, which an interrupted profile of the same request is resumed from.

    Every point is on disk before the next one is measured. A worker that fails is part of the outcome, and so are
    targets that no worker meets; AutotuneError if the machine or the folder forbid to go on.
    """
    setup.check()
    record = ProfileRecord.open_or_create(output, setup.request)
    with record.lock(), log_to(output / LOG_FILE):
        if setup.request.evaluator == "measured":
            orphans.remove_orphans()
        sweep = Sweep(setup, record, observe).run(accept_nearest=accept_nearest)
        outcome = ProfileOutcome(record, sweep)
        write_files(outcome)
        if runs_on_dynamo(setup.request) and outcome.is_complete:
            _write_deployment(outcome, setup)
    return outcome


def _write_deployment(outcome: ProfileOutcome, setup: WorkerSetup) -> None:
    """Write Dynamo's manifests beside the profile; what has none, such as a model's odd name, is only logged."""
    try:
        write_manifests(outcome.record.path, dynamo_deployment(outcome, setup))
    except (ConfigError, NoFeasibleError) as error:
        log.warning("No manifests for Dynamo: %s", error)


def write_files(outcome: ProfileOutcome) -> None:
    """Write the data files and the pictures of a profile."""
    from autotuner.profiling.pictures import draw_pictures

    if not outcome.is_complete:
        remove_planner_files(outcome.record.path)
    write_artefacts(outcome)
    draw_pictures(outcome)


def open_profile(folder: Path) -> ProfileOutcome:
    """Read a profile that is finished or was interrupted; RunStoreError if the folder is none."""
    record = ProfileRecord.open(folder)
    return ProfileOutcome(record, _read_sweep(folder / SLA_FILE))


def _read_sweep(path: Path) -> SweepResult:
    """What the last run did not launch, from sla.json; empty before it was written."""
    try:
        data = read_json(path)
        return SweepResult(
            [ForbiddenMapping(*_mapping_and_reason(row)) for row in data.get("forbidden", [])],
            [SkippedMapping(*_mapping_and_reason(row)) for row in data.get("skipped", [])],
            data.get("stopped"),
        )
    except FileNotFoundError:
        return SweepResult()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"'{path}' cannot be read.", why=file_error_reason(error), remedy="Repeat `autotune sla run`."
        ) from error


def _mapping_and_reason(row: Mapping[str, str]) -> tuple[ParallelMapping, str]:
    return mapping_named(row["mapping"]), row["reason"]


class _RedactingFormatter(logging.Formatter):
    """Masks known secrets, also those of a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Append the messages of the profile to a file while the block runs."""
    logger = logging.getLogger("autotuner.profiling")
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(_RedactingFormatter("%(asctime)s %(levelname)s %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
