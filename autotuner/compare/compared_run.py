"""A run as comparisons take it: the figures of each launch at each load point, without request records."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from autotuner.core import Distribution, LoadPoint, LoadPointResult, Trial, Value
from autotuner.experiment import Experiment
from autotuner.report.formatting import format_setting
from autotuner.report.run_view import RunView
from autotuner.runs.store import RunStore
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.pool import STEADY_STATE_VERDICTS, UNTRUSTED_VERDICTS


@dataclass(frozen=True)
class Figure:
    """A figure of a load point. `read(result, gpus)` is in base units, `scale` times that is in `unit`."""

    name: str
    title: str
    unit: str
    higher_is_better: bool
    read: Callable[[LoadPointResult, int], float | None]
    scale: float = 1.0


def _median(name: str) -> Callable[[LoadPointResult, int], float | None]:
    def read(result: LoadPointResult, gpus: int) -> float | None:
        distribution: Distribution | None = getattr(result.metrics, name)
        return distribution.p50 if distribution else None

    return read


FIGURES = (
    Figure("output_throughput", "output tokens/s/GPU", "", True, lambda r, gpus: r.metrics.output_throughput / gpus),
    Figure("goodput", "goodput", "requests/s", True, lambda r, gpus: r.metrics.goodput),
    Figure("ttft", "TTFT p50", "ms", False, _median("ttft"), 1000),
    Figure("tpot", "TPOT p50", "ms", False, _median("tpot"), 1000),
    Figure("e2e", "E2E p50", "s", False, _median("e2e")),
)
"""Medians, because the p99 of repeated launches differs by tens of percent (741 and 547 ms of 1,000 requests each)."""


@dataclass(frozen=True)
class LaunchFigures:
    """One launch: figures by load point and name.

    `utilities` is the objective, higher is better, where the server was in a steady state; `attainments` the
    share of requests that met all targets, at least half a request; `capacities` are by scenario.
    """

    trial_number: int
    is_confirmation: bool
    figures: Mapping[LoadPoint, Mapping[str, float]]
    utilities: Mapping[LoadPoint, float] = field(default_factory=dict)
    attainments: Mapping[LoadPoint, float] = field(default_factory=dict)
    capacities: Mapping[str, float] = field(default_factory=dict)

    def log_objective(self, points: Sequence[LoadPoint]) -> float | None:
        """Mean log utility over load points; None where one is missing."""
        return _mean_log([self.utilities.get(point) for point in points])

    def log_attainment(self, points: Sequence[LoadPoint]) -> float | None:
        """Mean log attainment over load points; None where one is missing."""
        return _mean_log([self.attainments.get(point) for point in points])

    def log_capacity(self) -> float | None:
        """Mean log capacity over the scenarios; None where none was determined."""
        return _mean_log(list(self.capacities.values()))


def _mean_log(values: Sequence[float | None]) -> float | None:
    logs = [math.log(value) for value in values if value]
    return math.fsum(logs) / len(logs) if logs and len(logs) == len(values) else None


@dataclass(frozen=True)
class ComparedCandidate:
    """One candidate with all its launches; `verdicts` by load point, `failure` where every launch failed."""

    key: str
    label: str
    runtime: str
    parameters: Mapping[str, Value]
    gpus: int
    launches: tuple[LaunchFigures, ...]
    verdicts: Mapping[LoadPoint, str]
    failure: str | None = None

    @property
    def settings(self) -> str:
        """All parameters, which name a candidate in any run."""
        texts = (f"{name}={format_setting(value)}" for name, value in self.parameters.items())
        return " ".join((self.runtime, *texts))

    @property
    def load_points(self) -> list[LoadPoint]:
        """Load points with figures, in the order of their first measurement."""
        return list(dict.fromkeys(point for launch in self.launches for point in launch.figures))

    def log_values(self, point: LoadPoint, figure: str) -> list[float]:
        """The natural logarithms of a figure at a load point, one for each launch that has it."""
        values = (launch.figures.get(point, {}).get(figure) for launch in self.launches)
        return [math.log(value) for value in values if value]

    def unbiased_launches(self) -> tuple[LaunchFigures, ...]:
        """Confirmation launches, which played no part in the selection of a winner; where there are none, all."""
        return tuple(launch for launch in self.launches if launch.is_confirmation) or self.launches


@dataclass(frozen=True)
class RunWords:
    """How texts call what a kind of run looks for, and what of it can be repeated."""

    best: str
    repetition: str
    repetitions: str
    none_is_best: str


TUNING_WORDS = RunWords("winner", "launch", "launches", "None of its candidates met the targets")
LOAD_TEST_WORDS = RunWords("best load point", "load test", "load tests", "None of its load points met the targets")


@dataclass(frozen=True)
class ComparedRun:
    """What a comparison needs of a run, or of a load test, which is a run of one server.

    `config` is its composed configuration, `environment` what it ran on as flat text by name.
    `winner_points` are the load points at which the winner is ranked, `winner_value` the objective there.
    """

    name: str
    config: Mapping[str, Any]
    sources: tuple[str, ...]
    environment: Mapping[str, str]
    candidates: Mapping[str, ComparedCandidate]
    winner_key: str | None
    winner_points: tuple[LoadPoint, ...] = ()
    winner_value: float | None = None
    is_load_test: bool = False

    @property
    def words(self) -> RunWords:
        return LOAD_TEST_WORDS if self.is_load_test else TUNING_WORDS

    @cached_property
    def experiment(self) -> Experiment:
        return Experiment.model_validate(self.config)

    @property
    def winner(self) -> ComparedCandidate | None:
        return None if self.winner_key is None else self.candidates[self.winner_key]

    @classmethod
    def from_view(
        cls, name: str, view: RunView, config: Mapping[str, Any], *, is_load_test: bool = False
    ) -> ComparedRun:
        """The figures of a judged run; `config` is its composed configuration."""
        winner = view.ranking.winner
        candidates = [_candidate(launches.trials, view) for launches in view.launches]
        if is_load_test:
            candidates = [replace(candidate, label="load points") for candidate in candidates]
        return cls(
            name=name,
            config=config,
            sources=tuple(view.ranking.sources),
            environment=_environment(view),
            candidates={candidate.key: candidate for candidate in candidates},
            winner_key=winner.candidate.key if winner else None,
            winner_points=winner.load_points if winner else (),
            winner_value=winner.headline_value if winner else None,
            is_load_test=is_load_test,
        )

    @classmethod
    def from_store(cls, store: RunStore) -> ComparedRun:
        """The figures of a run folder."""
        view = RunView.from_store(store)
        return cls.from_view(store.path.name, view, store.config(), is_load_test=store.kind == "load-test")


def _candidate(trials: Sequence[Trial], view: RunView) -> ComparedCandidate:
    first = trials[0]
    failure = first.measurement.failure if all(trial.failed for trial in trials) else None
    verdicts: dict[LoadPoint, str] = {}
    for trial in trials:
        verdicts |= {point: str(result.verdict) for point, result in trial.measurement.latest_results.items()}
    return ComparedCandidate(
        key=first.candidate.key,
        label=view.names.short_name(first.candidate),
        runtime=first.candidate.runtime,
        parameters=dict(first.candidate.parameters),
        gpus=first.candidate.gpus,
        launches=tuple(_launch(trial, view.experiment) for trial in trials if not trial.failed),
        verdicts=verdicts,
        failure=f"{failure.kind.value}: {failure.message}" if failure else None,
    )


def _launch(trial: Trial, experiment: Experiment) -> LaunchFigures:
    results = {
        point: result
        for point, result in trial.measurement.latest_results.items()
        if result.verdict not in UNTRUSTED_VERDICTS
    }
    gpus = trial.candidate.gpus
    objective = OBJECTIVES[experiment.optimization.objective]
    values = {
        point: objective.value(result.metrics, gpus, experiment.hardware.price_per_gpu_hour)
        for point, result in results.items()
        if result.verdict in STEADY_STATE_VERDICTS
    }
    shares = {point: result.metrics.attainment for point, result in results.items()}
    return LaunchFigures(
        trial.number,
        trial.purpose == "confirmation",
        {
            point: {figure.name: value for figure in FIGURES if (value := figure.read(result, gpus))}
            for point, result in results.items()
        },
        {point: objective.utility(value) for point, value in values.items() if value},
        {point: max(share.value, 0.5 / share.n) for point, share in shares.items() if share is not None},
        {capacity.scenario: capacity.value for capacity in trial.measurement.outcome.capacities if capacity.value},
    )


_HOST_FACTS = ("autotune", "host", "system", "kernel", "cpu", "driver")


def _environment(view: RunView) -> dict[str, str]:
    """Versions, host and GPUs, and what the engine told of itself, as text by name."""
    facts: dict[str, list[str]] = {}
    for host in view.environments:
        for name in _HOST_FACTS:
            if host.get(name):
                facts.setdefault(name, []).append(str(host[name]))
        gpus = [str(gpu.get("name")) for gpu in host.get("gpus") or ()]
        if gpus:
            counts = (f"{gpus.count(name)}x {name}" for name in dict.fromkeys(gpus))
            facts.setdefault("GPUs", []).append(", ".join(counts))
    for trial in view.trials:
        for key in ("version", "image", "image_digest"):
            if key in trial.measurement.server:
                name = f"{trial.candidate.runtime} {key.replace('_', ' ')}"
                facts.setdefault(name, []).append(str(trial.measurement.server[key]))
    return {name: ", ".join(dict.fromkeys(values)) for name, values in facts.items()}
