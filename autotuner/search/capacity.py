"""The load plan that finds, for each scenario, the highest load at which a server meets its targets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from autotuner.core import Capacity, LoadPlanSummary, LoadPoint, LoadPointResult, LoadStep, Verdict
from autotuner.errors import ConfigError
from autotuner.experiment import TRACE_RATE, Experiment
from autotuner.scoring.judge import judge_load_point
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.pool import UNTRUSTED_VERDICTS
from autotuner.scoring.sequential import decision_stop_rule
from autotuner.search.bracket import Bracket
from autotuner.search.incumbent import upper_mean_log_ratio
from autotuner.search.knee import Knee
from autotuner.search.margins import (
    LITTLES_LAW_CHECK,
    is_conclusive,
    is_retryable,
    is_too_short,
    load_of,
    log_slack,
    margin,
    steady_state_utility,
)

MIN_WARMUP_LATENCIES, MIN_WINDOW_LATENCIES = 1.0, 3.0
"""Least warm-up and window in mean E2E latencies; by hand: in windows of little more than one no queue is steady."""

MAX_WINDOW_FACTOR = 6.0
"""Longest warm-up and window relative to the configured window; chosen by hand."""

MAX_UNDECIDED_WINDOWS = 3.0
"""Windows after which an undecided load point ends; benchmarks/search/decisions.py: 330 of 353 are decided by then."""

MIN_THROUGHPUT_ERROR, ONE_REQUEST_THROUGHPUT_ERROR = 0.03, 0.5
"""Relative error of a throughput: the larger of the first and of the second / sqrt(requests); chosen by hand."""

FLAT_GAIN = 0.025
"""Relative gain in utility that does not justify another load point; chosen by hand, below WORTHWHILE_GAIN."""

WORTHWHILE_GAIN = 0.04
"""Relative gain below which candidates count as equal: real launches of one candidate differ by 2 to 6% by day."""

MIN_ELASTICITY = 0.05
"""Per cent of throughput per 1% of load below which the report calls it no gain; chosen by hand, display only."""


@dataclass(frozen=True)
class BracketStart:
    """The first load of a capacity search, and the factor of its first step up or down."""

    load: float
    step: float = 2.0


@dataclass(frozen=True)
class IncumbentUtility:
    """Steady-state utility of the best trial so far at its capacity, by scenario: what a candidate has to beat."""

    trial_number: int
    utility: Mapping[str, float]


@dataclass(frozen=True)
class LoadRange:
    """The loads a search may try: concurrencies, or request rates in 1/s."""

    minimum: float
    maximum: float
    is_rate: bool

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> LoadRange:
        benchmark = experiment.benchmark
        loads = benchmark.num_concurrency or benchmark.numeric_rates
        return cls(float(min(loads)), float(max(loads)), is_rate=not benchmark.num_concurrency)

    def load_point(self, scenario: str, load: float) -> LoadPoint:
        return LoadPoint(scenario, rate=load) if self.is_rate else LoadPoint(scenario, concurrency=int(load))


class CapacitySearch:
    """Brackets the capacity on each scenario in turn; each load point ends when its verdict is clear.

    Without targets a closed loop is searched for its knee instead, an open loop for the highest rate that is
    not saturated. `starts` maps scenarios to their first loads, the lowest load by default. With an `incumbent`
    the plan is pruned once the candidate cannot beat it by WORTHWHILE_GAIN. With `stop_when_flat` it also ends
    once no load within the bracket can have a utility FLAT_GAIN above that of its lower end.
    """

    def __init__(
        self,
        experiment: Experiment,
        gpus: int,
        starts: Mapping[str, BracketStart] | None = None,
        incumbent: IncumbentUtility | None = None,
        *,
        stop_when_flat: bool = False,
    ) -> None:
        self.experiment = experiment
        self.gpus = gpus
        self.incumbent = incumbent
        self.stop_when_flat = stop_when_flat
        self.load_range = LoadRange.from_experiment(experiment)
        self._workload = experiment.workload()
        lowest = BracketStart(self.load_range.minimum)
        scenarios = dict.fromkeys(experiment.benchmark.traffic_scenarios)
        self._searches = [_ScenarioSearch(self, name, (starts or {}).get(name, lowest)) for name in scenarios]
        self._prune_reason: str | None = None

    @property
    def max_load_points(self) -> int:
        """Estimate: doubling up to the highest load, then five bisections, on each scenario."""
        doublings = math.ceil(math.log2(max(self.load_range.maximum / self.load_range.minimum, 1))) + 1
        return len(self._searches) * (doublings + 5)

    @property
    def max_phase_seconds(self) -> tuple[float, float]:
        """Longest warm-up and longest window in seconds."""
        longest = MAX_WINDOW_FACTOR * self._workload.duration
        return longest if self._workload.warmup else 0.0, (MAX_UNDECIDED_WINDOWS + 1) * longest

    def ask(self) -> LoadStep | None:
        """The next load point of the first scenario that is not finished."""
        if self._prune_reason:
            return None
        for search in self._searches:
            load = search.ask()
            if load is not None:
                point = self.load_range.load_point(search.scenario, load)
                attempts = sum(result.load_point == point for result in search.results)
                warmup, window = search.phase_seconds(load)
                max_window = MAX_UNDECIDED_WINDOWS * window
                stop_rule = decision_stop_rule(self.experiment.slo, point, min_seconds=window, max_seconds=max_window)
                seed, longest = self._workload.seed + attempts, max_window + window
                workload = replace(self._workload, seed=seed, warmup=warmup, duration=window, max_duration=longest)
                return LoadStep(workload.for_load_point(point), stop_rule)
        return None

    def tell(self, result: LoadPointResult) -> None:
        """Judge the result, advance its scenario's search, and prune the candidate if it cannot win any more."""
        search = next(search for search in self._searches if search.scenario == result.load_point.scenario)
        search.tell(judge_load_point(result, self.gpus, self.experiment))
        incumbent, needed = self.incumbent, math.log(1 + WORTHWHILE_GAIN)
        if incumbent is not None and self.ask() is not None and self._upper_log_ratio(incumbent) <= needed:
            self._prune_reason = f"cannot beat trial {incumbent.trial_number}"

    @property
    def outcome(self) -> LoadPlanSummary:
        """The capacities found so far, and why the candidate was pruned, if it was."""
        capacities = tuple(search.capacity() for search in self._searches if search.results)
        return LoadPlanSummary(capacities, self._prune_reason, self._utility_bound())

    def _utility_bound(self) -> float | None:
        """Upper bound on a pruned candidate's utility, a geometric mean over scenarios; None if not pruned."""
        log_ratio = self._upper_log_ratio(self.incumbent) if self.incumbent and self._prune_reason else math.inf
        if self.incumbent is None or not math.isfinite(log_ratio):
            return None
        logs = [math.log(value) for value in self.incumbent.utility.values()]
        return math.exp(log_ratio + math.fsum(logs) / len(logs))

    def _upper_log_ratio(self, incumbent: IncumbentUtility) -> float:
        """Upper bound on the log of the candidate's utility over the incumbent's, averaged over scenarios."""
        log_ratios = []
        for search in self._searches:
            bound = search.utility_bound()
            if bound is None:
                break
            log_ratios.append(math.log(bound / incumbent.utility[search.scenario]))
        return upper_mean_log_ratio(log_ratios, len(self._searches) - len(log_ratios))


@dataclass
class _ScenarioSearch:
    """The search for the capacity, or the knee, on one scenario."""

    load_plan: CapacitySearch
    scenario: str
    start: BracketStart
    results: list[LoadPointResult] = field(default_factory=list)

    def __post_init__(self) -> None:
        load_range, slo = self.load_plan.load_range, self.load_plan.experiment.slo
        lower, upper = load_range.minimum, load_range.maximum
        self.search: Bracket | Knee
        if slo.terms or load_range.is_rate:
            first = min(max(self.start.load, lower), upper)
            self.search = Bracket(lower, upper, first, self.start.step, is_integer=not load_range.is_rate)
        else:
            self.search = Knee(lower, upper, self.start.load)

    def ask(self) -> float | None:
        if self.untrusted_reason or self._is_flat:
            return None
        return self.search.ask()

    @property
    def _is_flat(self) -> bool:
        """Whether no load within the bracket can have a utility FLAT_GAIN above that of its lower end."""
        if not self.load_plan.stop_when_flat or not isinstance(self.search, Bracket):
            return False
        low, high = self.search.limits()
        if low is None or high is None or not self.search.observations[low].is_conclusive:
            return False
        low_utility, high_utility = self._steady_utility(low), self._steady_utility(high)
        return low_utility is not None and high_utility is not None and high_utility <= (1 + FLAT_GAIN) * low_utility

    def phase_seconds(self, load: float) -> tuple[float, float]:
        """Seconds of warm-up and window, long enough relative to the expected latency for a steady queue."""
        workload = self.load_plan.experiment.workload()
        latency = 0.0
        if self.results and (e2e := self.results[-1].metrics.e2e) is not None:
            latency = e2e.mean * max(1.0, load / load_of(self.results[-1]))
        longest = MAX_WINDOW_FACTOR * workload.duration
        warmup = min(max(workload.warmup, MIN_WARMUP_LATENCIES * latency), longest) if workload.warmup else 0.0
        return warmup, min(max(workload.duration, MIN_WINDOW_LATENCIES * latency), longest)

    def tell(self, result: LoadPointResult) -> None:
        """Record a judged load point; the search does not hear of a first result that is unusable, and asks again."""
        is_second_attempt = any(load_of(result) == load_of(other) for other in self.results)
        self.results.append(result)
        load = load_of(result)
        if not is_second_attempt and (is_retryable(result) or self._needs_longer_window(result)):
            return  # the search asks for the same load again: new random draws, and a window as long as they need
        if isinstance(self.search, Bracket):
            experiment = self.load_plan.experiment
            self.search.tell(
                load,
                margin(result, experiment),
                result.metrics.requests,
                is_conclusive=is_conclusive(result),
                slack=log_slack(result, experiment),
            )
        elif result.metrics.e2e is not None:
            self.search.tell(load, result.metrics.request_throughput, result.metrics.e2e.mean)
        else:
            self.search.tell(load, 0.0, 0.0)

    def _needs_longer_window(self, result: LoadPointResult) -> bool:
        """Whether the load point may become valid in the longer window that its own latencies now call for."""
        _, window = self.phase_seconds(load_of(result))
        return is_too_short(result) and window > self.load_plan.experiment.workload().duration

    @property
    def untrusted_reason(self) -> str | None:
        """Why a knee search ends early: throughput, latency and concurrency contradict Little's law twice."""
        if isinstance(self.search, Bracket):
            return None
        attempts = [result for result in self.results if result.load_point == self.results[-1].load_point]
        checks = [check for result in attempts[1:] for check in result.validity if check.name == LITTLES_LAW_CHECK]
        return "the figures do not obey Little's law" if any(not check.ok for check in checks) else None

    def utility_bound(self) -> float | None:
        """Upper bound on the utility at this scenario's capacity; None while there is none.

        Throughput does not fall as load rises, so its value where the targets are missed is a bound.
        """
        if not isinstance(self.search, Bracket):
            return None
        low, high = self.search.limits()
        is_finished = self.ask() is None and low is not None
        utility = self._steady_utility(low if is_finished else high)
        if utility is None or high is None or is_finished:
            return utility
        result = self._result_at(high)
        if result is not None and result.verdict in UNTRUSTED_VERDICTS:
            return None
        requests = result.metrics.requests if result else 1
        return (1 + max(MIN_THROUGHPUT_ERROR, ONE_REQUEST_THROUGHPUT_ERROR / math.sqrt(max(requests, 1)))) * utility

    def _steady_utility(self, load: float | None) -> float | None:
        result = self._result_at(load) if load is not None else None
        return steady_state_utility(result, self.load_plan.gpus, self.load_plan.experiment) if result else None

    def _result_at(self, load: float) -> LoadPointResult | None:
        point = self.load_plan.load_range.load_point(self.scenario, load)
        return next((result for result in reversed(self.results) if result.load_point == point), None)

    def capacity(self) -> Capacity:
        """The highest load that met the targets (without targets: the knee), and the lowest load tried above it."""
        unit: Literal["rate", "concurrency"] = "rate" if self.load_plan.load_range.is_rate else "concurrency"
        if isinstance(self.search, Bracket):
            low, high = self.search.limits()
            return Capacity(self.scenario, unit, low or 0.0, high, len(self.results), self._end_reason())
        above = min((load for load in self.search.rate_per_latency if load > self.search.best_load), default=None)
        return Capacity(self.scenario, unit, self.search.best_load, above, len(self.results), self._end_reason())

    def _end_reason(self) -> str:
        """Why the search ended there, as shown after the capacity."""
        if any(result.verdict is Verdict.CLIENT_LIMITED for result in self.results):
            return "the load generator was the limit"
        if isinstance(self.search, Bracket):
            if self._is_flat:
                return "more load brings no more throughput"
            return self.search.end_reason if self.search.ask() is None else "not finished"
        if self.untrusted_reason:
            return self.untrusted_reason
        elasticity = self.search.elasticity
        if elasticity is None:
            return "the highest load allowed still pays"
        if elasticity < MIN_ELASTICITY:
            return "above it, more in flight brings no more throughput"
        return f"above it, 1% more in flight brings {elasticity:.1f}% more throughput"


def check_capacity(experiment: Experiment) -> None:
    """Raise ConfigError if a capacity search makes no sense for the objective or the loads."""
    benchmark, objective = experiment.benchmark, OBJECTIVES[experiment.optimization.objective]
    *others, last = (other.name for other in OBJECTIVES.values() if not other.at_equal_load)
    if benchmark.find_capacity and objective.at_equal_load:
        raise ConfigError(
            f"{objective.name} cannot be compared at each candidate's own capacity.",
            why="A latency is best at the lowest load; at its capacity each candidate is as slow as the SLO allows.",
            remedy=f"Use --objective {', '.join(others)} or {last}.",
        )
    if benchmark.find_capacity and TRACE_RATE in benchmark.request_rates:
        raise ConfigError(
            "A capacity search needs two rates to search between, and a trace's own rate is one.",
            remedy="Give --rate two numbers; the trace is stretched to rates between them.",
        )
    if benchmark.find_capacity and benchmark.num_concurrency and benchmark.request_rates:
        raise ConfigError(
            "A capacity is a concurrency or a rate, not both.", remedy="Leave out --concurrency or --rate."
        )
