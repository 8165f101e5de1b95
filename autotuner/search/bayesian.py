"""Bayesian optimisation by Optuna: TPE or a Gaussian process over the candidates of a space."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autotuner.core import Candidate, Trial, Value
from autotuner.errors import MachineError, pluralize
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.rank import Standing, rank
from autotuner.search.account import SearchReport
from autotuner.search.grid import MAX_CONSIDERED, balanced_subset
from autotuner.search.launch import Launch
from autotuner.search.margins import margin
from autotuner.search.problem import Problem

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

INITIAL_DESIGN_SIZE = 10
"""Launches of an even spread before anything is modelled; a model of fewer says nothing."""

FAILURE_VIOLATION = 1.0
"""The constraint of a launch that failed; that of a measured one is its distance from the targets, at most 1."""


@dataclass(frozen=True)
class LaunchResult:
    """What a finished launch came to: logarithms of its utilities and, above 0, by how far it missed the targets.

    `values` is None for a failure, which has no figures and counts as infeasible.
    """

    candidate: Candidate
    log_utilities: tuple[float, ...] | None
    violation: float


class BayesianSearch:
    """Asks for the candidate that Optuna's sampler finds most promising among those not yet asked for.

    Targets are constraints. What is asked follows from the seed, how many were asked for, and what
    was told: a resumed search goes on as the interrupted one would have. Launches under way are
    known to the sampler, so that several can be asked for at once. A parameter that a candidate
    lacks is no part of what Optuna is told of it, and brings no candidate nearer or farther.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.experiment = problem.experiment
        chosen = problem.experiment.optimization
        self.objectives = tuple(dict.fromkeys((chosen.objective, *chosen.further_objectives)))
        pool = problem.space.candidates
        if len(pool) > MAX_CONSIDERED:
            pool = tuple(random.Random(problem.seed).sample(pool, MAX_CONSIDERED))
        self._open_candidates = {candidate.key: candidate for candidate in pool}
        self._space_keys = {candidate.key for candidate in problem.space.candidates}
        self._axes = {
            name: ParameterAxis.from_values(name, values) for name, values in problem.space.parameters.items()
        }
        first = list(balanced_subset(pool, INITIAL_DESIGN_SIZE, problem.seed))
        random.Random(problem.seed).shuffle(first)
        self._initial_design = first
        self._proposals: dict[str, Candidate] = {}
        self._results: dict[str, LaunchResult] = {}

    def ask(self) -> Launch | None:
        """The next launch; None when the limit is reached or nothing is left."""
        if not self._open_candidates or len(self._proposals) >= self.problem.max_launches:
            return None
        unguided = [candidate for candidate in self._initial_design if candidate.key in self._open_candidates]
        candidate = unguided[0] if unguided else self._suggest()
        self._mark_proposed(candidate)
        return Launch(candidate)

    @property
    def report(self) -> SearchReport:
        """It ends with its launches, or with the candidates."""
        if not self._open_candidates:
            return SearchReport("every candidate was tried")
        if len(self._proposals) < self.problem.max_launches:
            return SearchReport()
        most = self.experiment.optimization.max_iterations
        return SearchReport(f"max_iterations allows {pluralize(most, 'launch', 'launches')}")

    def tell(self, trial: Trial) -> None:
        """Learn from a finished launch."""
        if trial.purpose == "confirmation":
            return
        if trial.purpose == "search":
            self._mark_proposed(trial.candidate)
        if trial.candidate.key in self._space_keys:
            self._results[trial.candidate.key] = self._launch_result(trial)

    def _mark_proposed(self, candidate: Candidate) -> None:
        self._proposals[candidate.key] = candidate
        self._open_candidates.pop(candidate.key, None)

    def _launch_result(self, trial: Trial) -> LaunchResult:
        standings = [self._standing(trial, objective) for objective in self.objectives]
        values = [
            math.log(OBJECTIVES[name].utility(standing.value))
            for name, standing in zip(self.objectives, standings, strict=True)
            if standing is not None and standing.value
        ]
        if len(values) < len(self.objectives):
            return LaunchResult(trial.candidate, None, FAILURE_VIOLATION)
        points = {point for standing in standings if standing for point in standing.load_points}
        inside = [
            margin(result, self.experiment) for result in trial.measurement.load_points if result.load_point in points
        ]
        return LaunchResult(trial.candidate, tuple(values), -min(inside, default=-FAILURE_VIOLATION))

    def _standing(self, trial: Trial, objective: str) -> Standing | None:
        chosen = self.experiment.optimization.model_copy(update={"objective": objective})
        standings = rank([trial], self.experiment.model_copy(update={"optimization": chosen})).standings
        return standings[0] if standings and not trial.failed else None

    def _suggest(self) -> Candidate:
        """The candidate nearest to what the sampler proposes."""
        study = self._build_study()
        asked = study.ask({name: axis.distribution() for name, axis in self._axes.items()})
        wanted = {name: axis.index_of(axis.decode(asked.params[name])) for name, axis in self._axes.items()}

        def distance(candidate: Candidate) -> float:
            return sum(
                self._axes[name].distance(wanted[name], self._axes[name].index_of(value))
                for name, value in candidate.parameters.items()
            )

        return min(self._open_candidates.values(), key=distance)

    def _build_study(self) -> Study:
        """All that is known, as a study of its own; cheap, and the same after a resume."""
        optuna = _import_optuna()
        study: Study = optuna.create_study(directions=["maximize"] * len(self.objectives), sampler=self._sampler())
        complete, running = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.RUNNING
        worst = self._worst_utilities()
        for told in self._results.values():
            trial = optuna.trial.create_trial(
                state=complete,
                values=told.log_utilities or worst,
                constraints={"targets": told.violation},
                **self._optuna_arguments(told.candidate),
            )
            study.add_trial(trial)
        for key, candidate in self._proposals.items():
            if key not in self._results:
                study.add_trial(optuna.trial.create_trial(state=running, **self._optuna_arguments(candidate)))
        return study

    def _worst_utilities(self) -> tuple[float, ...]:
        """What a failure is entered with, for it has no figures: the worst that was seen of each objective."""
        seen = [told.log_utilities for told in self._results.values() if told.log_utilities is not None]
        return tuple(min(values) for values in zip(*seen, strict=True)) if seen else (0.0,) * len(self.objectives)

    def _optuna_arguments(self, candidate: Candidate) -> dict[str, Any]:
        given = candidate.parameters
        return {
            "params": {name: self._axes[name].encode(value) for name, value in given.items()},
            "distributions": {name: self._axes[name].distribution() for name in given},
        }

    def _sampler(self) -> BaseSampler:
        samplers = _import_optuna().samplers
        # One stream for each ask: the position in it would be lost with the process.
        seed = random.Random(f"{self.problem.seed} {len(self._proposals)}").randrange(2**31)
        if self.experiment.optimization.sampler == "gp":
            _require_torch()
            process: BaseSampler = samplers.GPSampler(seed=seed, n_startup_trials=0, warn_independent_sampling=False)
            return process
        several = len(self._axes) > 1
        tree: BaseSampler = samplers.TPESampler(seed=seed, n_startup_trials=0, multivariate=several, constant_liar=True)
        return tree


@dataclass(frozen=True)
class ParameterAxis:
    """One parameter: its values in order, and whether the order means anything."""

    name: str
    values: tuple[Value, ...]
    is_ordered: bool

    @classmethod
    def from_values(cls, name: str, values: Sequence[Value]) -> ParameterAxis:
        """Numbers are in their order; anything else is a choice."""
        # 1 and True are equal, and two values all the same
        unique = [value for _, value in dict.fromkeys((isinstance(value, bool), value) for value in values)]
        numbers = [value for value in unique if isinstance(value, int | float) and not isinstance(value, bool)]
        ordered = len(numbers) == len(unique)
        return cls(name, tuple(sorted(numbers) if ordered else unique), ordered)

    def distribution(self) -> BaseDistribution:
        """Where Optuna looks: positions among the values."""
        kinds = _import_optuna().distributions
        places = range(len(self.values))
        found: BaseDistribution = (
            kinds.IntDistribution(0, places[-1])
            if self.is_ordered
            else kinds.CategoricalDistribution([*map(str, places)])
        )
        return found

    def index_of(self, value: Value) -> int:
        """The position of a value."""
        return next(
            position
            for position, own in enumerate(self.values)
            if own == value and isinstance(own, bool) == isinstance(value, bool)
        )

    def encode(self, value: Value) -> int | str:
        """A value as Optuna knows it."""
        return self.index_of(value) if self.is_ordered else str(self.index_of(value))

    def decode(self, code: int | str) -> Value:
        """What Optuna's choice means."""
        return self.values[int(code)]

    def distance(self, one: int, other: int) -> float:
        """How far apart two positions are, from 0 to 1."""
        if self.is_ordered:
            return abs(one - other) / max(1, len(self.values) - 1)
        return float(one != other)


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MachineError(
            "The bayesian strategy needs Optuna.",
            why=f"{error}.",
            remedy="Install it with: pip install 'autotune[bayesian]'",
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _require_torch() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("torch", "scipy") if find_spec(name) is None]
    if missing:
        raise MachineError(
            f"The sampler gp needs {' and '.join(missing)}.",
            why="Optuna fits its Gaussian process with them.",
            remedy="Install them with: pip install 'autotune[bayesian-gp]', or use optimization.sampler=tpe.",
        )
