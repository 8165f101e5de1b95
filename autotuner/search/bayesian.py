"""Bayesian optimization by Optuna, with TPE or a Gaussian process, over the candidates of a space."""

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
from autotuner.search.grid import MAX_CONSIDERED, balanced_subset
from autotuner.search.launch import Launch
from autotuner.search.margins import margin
from autotuner.search.problem import Problem
from autotuner.search.protocol import SearchReport

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

INITIAL_DESIGN_SIZE = 10
"""Balanced launches before the sampler takes over; Optuna's own default of n_startup_trials."""

FAILURE_VIOLATION = 1.0
"""Constraint value of a failed launch: the largest that a measured one gets from its margin, -1 at worst."""


@dataclass(frozen=True)
class LaunchResult:
    """Log utility by objective, and the constraint violation: positive where the targets were missed.

    `log_utilities` is None for a failed launch, which counts as infeasible.
    """

    candidate: Candidate
    log_utilities: tuple[float, ...] | None
    violation: float


class BayesianSearch:
    """Proposes the untested candidate nearest to the suggestion of Optuna's sampler, with targets as constraints.

    A proposal depends only on the seed, the number of earlier proposals and the finished trials, so a resumed search
    goes on like an uninterrupted one. Running launches enter the study as running trials, so several can be proposed
    at once. A parameter that a candidate lacks is absent from its Optuna trial and from distances.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.experiment = problem.experiment
        optimization = problem.experiment.optimization
        self.objectives = tuple(dict.fromkeys((optimization.objective, *optimization.further_objectives)))
        pool = problem.space.candidates
        if len(pool) > MAX_CONSIDERED:
            pool = tuple(random.Random(problem.seed).sample(pool, MAX_CONSIDERED))
        self._open_candidates = {candidate.key: candidate for candidate in pool}
        self._space_keys = {candidate.key for candidate in problem.space.candidates}
        parameters = problem.space.parameters
        self._axes = {name: ParameterAxis.from_values(name, values) for name, values in parameters.items()}
        self._initial_design = list(balanced_subset(pool, INITIAL_DESIGN_SIZE, problem.seed))
        random.Random(problem.seed).shuffle(self._initial_design)
        self._proposals: dict[str, Candidate] = {}
        self._results: dict[str, LaunchResult] = {}

    def preview(self) -> tuple[Launch, ...]:
        """The initial design, then other candidates in place of what the sampler will suggest."""
        pool = dict.fromkeys((*self._initial_design, *self._open_candidates.values()))
        return tuple(map(Launch, list(pool)[: max(self.problem.max_launches, 0)]))

    def ask(self) -> Launch | None:
        """The next launch; None when the limit is reached or every candidate was proposed."""
        if not self._open_candidates or len(self._proposals) >= self.problem.max_launches:
            return None
        initial = [candidate for candidate in self._initial_design if candidate.key in self._open_candidates]
        candidate = initial[0] if initial else self._suggest()
        self._mark_proposed(candidate)
        return Launch(candidate)

    @property
    def report(self) -> SearchReport:
        if not self._open_candidates:
            return SearchReport("every candidate was tried")
        if len(self._proposals) < self.problem.max_launches:
            return SearchReport()
        max_iterations = self.experiment.optimization.max_iterations
        return SearchReport(f"max_iterations allows {pluralize(max_iterations, 'launch', 'launches')}")

    def tell(self, trial: Trial) -> None:
        """Record a finished trial; confirmations do not enter the model."""
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
        """Log utility by objective, and as constraint violation the worst margin to the targets, its sign turned."""
        standings = [self._standing(trial, objective) for objective in self.objectives]
        log_utilities = [
            math.log(OBJECTIVES[name].utility(standing.value))
            for name, standing in zip(self.objectives, standings, strict=True)
            if standing is not None and standing.value
        ]
        if len(log_utilities) < len(self.objectives):
            return LaunchResult(trial.candidate, None, FAILURE_VIOLATION)
        points = {point for standing in standings if standing for point in standing.load_points}
        results = [result for result in trial.measurement.load_points if result.load_point in points]
        worst_margin = min((margin(result, self.experiment) for result in results), default=-FAILURE_VIOLATION)
        return LaunchResult(trial.candidate, tuple(log_utilities), -worst_margin)

    def _standing(self, trial: Trial, objective: str) -> Standing | None:
        """The trial's standing under another objective than the experiment's; None if it failed."""
        optimization = self.experiment.optimization.model_copy(update={"objective": objective})
        standings = rank([trial], self.experiment.model_copy(update={"optimization": optimization})).standings
        return standings[0] if standings and not trial.failed else None

    def _suggest(self) -> Candidate:
        """The untested candidate nearest to the sampler's suggestion."""
        study = self._build_study()
        suggestion = study.ask({name: axis.distribution() for name, axis in self._axes.items()})
        target = {name: axis.index_of(axis.decode(suggestion.params[name])) for name, axis in self._axes.items()}

        def distance(candidate: Candidate) -> float:
            return sum(
                self._axes[name].distance(target[name], self._axes[name].index_of(value))
                for name, value in candidate.parameters.items()
            )

        return min(self._open_candidates.values(), key=distance)

    def _build_study(self) -> Study:
        """A new Optuna study of all results and running launches: cheap, and the same after a resume."""
        optuna = _import_optuna()
        study: Study = optuna.create_study(directions=["maximize"] * len(self.objectives), sampler=self._sampler())
        complete, running = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.RUNNING
        worst = self._worst_utilities()
        for result in self._results.values():
            trial = optuna.trial.create_trial(
                state=complete,
                values=result.log_utilities or worst,
                constraints={"targets": result.violation},
                **self._optuna_arguments(result.candidate),
            )
            study.add_trial(trial)
        for key, candidate in self._proposals.items():
            if key not in self._results:
                study.add_trial(optuna.trial.create_trial(state=running, **self._optuna_arguments(candidate)))
        return study

    def _worst_utilities(self) -> tuple[float, ...]:
        """The worst measured value of each objective, which a failed launch is entered with."""
        rows = [result.log_utilities for result in self._results.values() if result.log_utilities is not None]
        return tuple(min(values) for values in zip(*rows, strict=True)) if rows else (0.0,) * len(self.objectives)

    def _optuna_arguments(self, candidate: Candidate) -> dict[str, Any]:
        parameters = candidate.parameters
        return {
            "params": {name: self._axes[name].encode(value) for name, value in parameters.items()},
            "distributions": {name: self._axes[name].distribution() for name in parameters},
        }

    def _sampler(self) -> BaseSampler:
        samplers = _import_optuna().samplers
        # a new seed for each proposal: a resumed process has lost its position in the random stream
        seed = random.Random(f"{self.problem.seed} {len(self._proposals)}").randrange(2**31)
        if self.experiment.optimization.sampler == "gp":
            _require_torch()
            gp: BaseSampler = samplers.GPSampler(seed=seed, n_startup_trials=0, warn_independent_sampling=False)
            return gp
        multivariate = len(self._axes) > 1
        tpe: BaseSampler = samplers.TPESampler(
            seed=seed, n_startup_trials=0, multivariate=multivariate, constant_liar=True
        )
        return tpe


@dataclass(frozen=True)
class ParameterAxis:
    """A parameter's values as Optuna sees them: indices, ordered if all values are numbers."""

    name: str
    values: tuple[Value, ...]
    is_ordered: bool

    @classmethod
    def from_values(cls, name: str, values: Sequence[Value]) -> ParameterAxis:
        """Sorted if all values are numbers, else categorical."""
        # 1 == True in Python, but they are two values of a parameter
        unique = [value for _, value in dict.fromkeys((isinstance(value, bool), value) for value in values)]
        numbers = [value for value in unique if isinstance(value, int | float) and not isinstance(value, bool)]
        is_ordered = len(numbers) == len(unique)
        return cls(name, tuple(sorted(numbers) if is_ordered else unique), is_ordered)

    def distribution(self) -> BaseDistribution:
        """Optuna's distribution over the indices of the values."""
        distributions = _import_optuna().distributions
        indices = range(len(self.values))
        distribution: BaseDistribution = (
            distributions.IntDistribution(0, indices[-1])
            if self.is_ordered
            else distributions.CategoricalDistribution([*map(str, indices)])
        )
        return distribution

    def index_of(self, value: Value) -> int:
        """The index of a value; 1 and True differ."""
        return next(
            index
            for index, other in enumerate(self.values)
            if other == value and isinstance(other, bool) == isinstance(value, bool)
        )

    def encode(self, value: Value) -> int | str:
        """A value as Optuna's integer or category."""
        return self.index_of(value) if self.is_ordered else str(self.index_of(value))

    def decode(self, code: int | str) -> Value:
        """The value of Optuna's integer or category."""
        return self.values[int(code)]

    def distance(self, one: int, other: int) -> float:
        """Distance of two indices, 0 to 1."""
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
