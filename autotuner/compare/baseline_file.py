"""A baseline as one small file that people commit: a run without its records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from autotuner.compare.compared_run import ComparedCandidate, ComparedRun, LaunchFigures
from autotuner.core import LoadPoint
from autotuner.errors import RunStoreError
from autotuner.experiment import Experiment
from autotuner.input_files import read_json
from autotuner.output_files import write_whole
from autotuner.redaction import redact, redact_data, redact_settings
from autotuner.runs.store import explain_write_errors

FORMAT_KEY, FORMAT = "autotune_baseline", 1
"""The key that every baseline has, and the version of the file."""


T = TypeVar("T")


def save_baseline(run: ComparedRun, path: Path) -> None:
    """Write a run as a baseline file; RunStoreError if it cannot be written."""
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(_run_to_json(run), indent=1) + "\n").encode())


def load_baseline(path: Path) -> ComparedRun:
    """Read a baseline file; RunStoreError if it is none."""
    try:
        data = read_json(path)
    except OSError as error:
        raise _unreadable(path, f"{error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, "It is not JSON.") from error
    version = data.get(FORMAT_KEY) if isinstance(data, dict) else None
    if not isinstance(version, int):
        raise _unreadable(path, f"It has no `{FORMAT_KEY}`, as every baseline has.")
    if version > FORMAT:
        raise _unreadable(path, f"It has format {version}, and this version of autotune reads up to {FORMAT}.")
    try:
        saved = _SavedRun.model_validate(data)
        Experiment.model_validate(saved.config)
        return _run_of(saved)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise _unreadable(path, f"Some of it is missing or damaged{f', first at {place}' if place else ''}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, "Some of it is missing or damaged.") from error


def _unreadable(path: Path, why: str) -> RunStoreError:
    return RunStoreError(
        f"'{path}' cannot be read as a baseline.",
        why=why,
        remedy="Write it again: autotune baseline save RUN --to FILE.",
    )


def _point_to_json(point: LoadPoint) -> list[Any]:
    return [point.scenario, point.concurrency, point.rate]


def _by_point(values: Mapping[LoadPoint, Any]) -> list[list[Any]]:
    return [[*_point_to_json(point), value] for point, value in values.items()]


def _run_to_json(run: ComparedRun) -> dict[str, Any]:
    return {
        FORMAT_KEY: FORMAT,
        "name": redact(run.name),
        "config": redact_settings(run.config),
        "sources": list(run.sources),
        "environment": redact_data(run.environment),
        "load_test": run.is_load_test,
        "winner": run.winner_key,
        "winner_points": [_point_to_json(point) for point in run.winner_points],
        "winner_value": run.winner_value,
        "candidates": [
            {
                "key": candidate.key,
                "label": candidate.label,
                "runtime": candidate.runtime,
                "parameters": dict(candidate.parameters),
                "gpus": candidate.gpus,
                "verdicts": _by_point(candidate.verdicts),
                "failure": redact_data(candidate.failure),
                "launches": [
                    {
                        "trial": launch.trial_number,
                        "confirmation": launch.is_confirmation,
                        "figures": _by_point({point: dict(values) for point, values in launch.figures.items()}),
                        "utilities": _by_point(launch.utilities),
                        "attainments": _by_point(launch.attainments),
                        "capacities": dict(launch.capacities),
                    }
                    for launch in candidate.launches
                ],
            }
            for candidate in run.candidates.values()
        ],
    }


Positive = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, strict=True)]
PointRow = tuple[str, Count | None, Positive | None]
"""A load point: scenario, concurrency, and rate in 1/s."""


class _SavedLaunch(BaseModel):
    trial: int
    confirmation: bool
    figures: list[tuple[str, Count | None, Positive | None, dict[str, Positive]]]
    utilities: list[tuple[str, Count | None, Positive | None, Positive]]
    attainments: list[tuple[str, Count | None, Positive | None, Annotated[Positive, Field(le=1)]]]
    capacities: dict[str, Positive]


class _SavedCandidate(BaseModel):
    key: str
    label: str
    runtime: str
    parameters: dict[str, Any]
    gpus: Count
    verdicts: list[tuple[str, Count | None, Positive | None, str]]
    failure: str | None
    launches: list[_SavedLaunch]


class _SavedRun(BaseModel):
    """What a baseline file holds; figures are logarithmised, and so are finite and positive."""

    name: str
    config: dict[str, Any]
    sources: list[str]
    environment: dict[str, str]
    load_test: bool = False
    winner: str | None
    winner_points: list[PointRow]
    winner_value: Positive | None
    candidates: list[_SavedCandidate]

    @model_validator(mode="after")
    def _check_winner(self) -> _SavedRun:
        if self.winner is not None and self.winner not in {candidate.key for candidate in self.candidates}:
            raise ValueError("the winner is none of the candidates")
        return self


def _from_points(rows: Sequence[tuple[str, int | None, float | None, T]]) -> dict[LoadPoint, T]:
    return {LoadPoint(scenario, concurrency, rate): value for scenario, concurrency, rate, value in rows}


def _run_of(saved: _SavedRun) -> ComparedRun:
    candidates = [
        ComparedCandidate(
            row.key,
            row.label,
            row.runtime,
            row.parameters,
            row.gpus,
            tuple(
                LaunchFigures(
                    launch.trial,
                    launch.confirmation,
                    _from_points(launch.figures),
                    _from_points(launch.utilities),
                    _from_points(launch.attainments),
                    launch.capacities,
                )
                for launch in row.launches
            ),
            _from_points(row.verdicts),
            row.failure,
        )
        for row in saved.candidates
    ]
    return ComparedRun(
        name=saved.name,
        config=saved.config,
        sources=tuple(saved.sources),
        environment=saved.environment,
        candidates={candidate.key: candidate for candidate in candidates},
        winner_key=saved.winner,
        winner_points=tuple(LoadPoint(*row) for row in saved.winner_points),
        winner_value=saved.winner_value,
        is_load_test=saved.load_test,
    )
