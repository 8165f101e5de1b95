"""The course that finds, for each scenario, the highest load at which a server meets its targets."""

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
from autotuner.search.hope import upper_mean_log_ratio
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

MIN_WARMUP_LATENCIES, MIN_WINDOW_LATENCIES, MAX_WINDOW_FACTOR = 1.0, 3.0, 6.0
"""Mean requests a warm-up and a window last at least; a window is no longer than LONGEST times the configured one."""

MAX_UNDECIDED_WINDOWS = 3.0
"""Windows that a load point may last until its answer is clear."""

MIN_THROUGHPUT_ERROR, ONE_REQUEST_THROUGHPUT_ERROR = 0.03, 0.5
"""What the throughput at a load may be off by, as a share, and over the root of the requests behind it."""

FLAT_GAIN = 0.025
"""A gain, as a share, for which the load at which a candidate is compared is not raised further."""

WORTHWHILE_GAIN = 0.04
"""A gain, as a share, below which two candidates are as good as each other."""

MIN_ELASTICITY = 0.05
"""Per cent of throughput for one of load that are told from none."""


@dataclass(frozen=True)
class BracketStart:
    """Where the search for a capacity begins, and by what factor its first step goes up or down."""

    load: float
    step: float = 2.0


@dataclass(frozen=True)
class IncumbentUtility:
    """What has to be beaten: the steady utility of trial `trial` at its capacity, by scenario."""

    trial_number: int
    utility: Mapping[str, float]


@dataclass(frozen=True)
class LoadRange:
    """The loads that may be tried, concurrencies or rates in 1/s."""

    minimum: float
    maximum: float
    is_rate: bool

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> LoadRange:
        """From the lowest to the highest load of the experiment."""
        load = experiment.benchmark
        values = load.num_concurrency or load.numeric_rates
        return cls(float(min(values)), float(max(values)), is_rate=not load.num_concurrency)

    def load_point(self, scenario: str, load: float) -> LoadPoint:
        """One of them, on a scenario."""
        return LoadPoint(scenario, rate=load) if self.is_rate else LoadPoint(scenario, concurrency=int(load))


class CapacitySearch:
    """Brackets the capacity on each scenario in turn; each load point ends when its answer is clear.

    Without targets a closed loop is searched for its knee instead, an open one for the highest
    rate that is not saturated. `starts` says where to begin, by scenario, the lowest load where it
    says nothing. With a `floor` the course is given up once it cannot be surpassed by WORTH any
    more. With `by_utility` it also ends where no load between the highest that meets the targets
    and the lowest that misses them can be worth more by GAIN.
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
        scenarios = dict.fromkeys(experiment.benchmark.traffic_scenarios)
        self._scenario_searches = [
            _ScenarioSearch(self, name, (starts or {}).get(name, BracketStart(self.load_range.minimum)))
            for name in scenarios
        ]
        self._prune_reason: str | None = None

    @property
    def max_load_points(self) -> int:
        """About how many load points it takes at most: doubling up to the highest load, then bisection."""
        doublings = math.ceil(math.log2(max(self.load_range.maximum / self.load_range.minimum, 1))) + 1
        return len(self._scenario_searches) * (doublings + 5)

    @property
    def max_phase_seconds(self) -> tuple[float, float]:
        """Seconds that a warm-up and a window last at most."""
        most = MAX_WINDOW_FACTOR * self._workload.duration
        return most if self._workload.warmup else 0.0, (MAX_UNDECIDED_WINDOWS + 1) * most

    def ask(self) -> LoadStep | None:
        """The next load point."""
        if self._prune_reason:
            return None
        for quest in self._scenario_searches:
            load = quest.ask()
            if load is not None:
                again = sum(
                    result.load_point == self.load_range.load_point(quest.scenario, load) for result in quest.results
                )
                warmup, seconds = quest.phase_seconds(load)
                most = MAX_UNDECIDED_WINDOWS * seconds
                point = self.load_range.load_point(quest.scenario, load)
                stop = decision_stop_rule(self.experiment.slo, point, min_seconds=seconds, max_seconds=most)
                seed = self._workload.seed + again
                workload = replace(
                    self._workload, seed=seed, warmup=warmup, duration=seconds, max_duration=most + seconds
                )
                return LoadStep(workload.for_load_point(point), stop)
        return None

    def tell(self, result: LoadPointResult) -> None:
        """Take note of what it came to."""
        quest = next(quest for quest in self._scenario_searches if quest.scenario == result.load_point.scenario)
        quest.tell(judge_load_point(result, self.gpus, self.experiment))
        if (
            self.incumbent is not None
            and self.ask() is not None
            and self._upper_log_ratio(self.incumbent) <= math.log(1 + WORTHWHILE_GAIN)
        ):
            self._prune_reason = f"cannot beat trial {self.incumbent.trial_number}"

    @property
    def outcome(self) -> LoadPlanSummary:
        """The capacities found so far."""
        found = tuple(quest.capacity() for quest in self._scenario_searches if quest.results)
        return LoadPlanSummary(found, self._prune_reason, self._utility_bound())

    def _utility_bound(self) -> float | None:
        hope = self._upper_log_ratio(self.incumbent) if self.incumbent and self._prune_reason else math.inf
        if self.incumbent is None or not math.isfinite(hope):
            return None
        logs = [math.log(value) for value in self.incumbent.utility.values()]
        return math.exp(hope + math.fsum(logs) / len(logs))

    def _upper_log_ratio(self, incumbent: IncumbentUtility) -> float:
        """The log of how many times better than the floor the candidate can still turn out."""
        ratios = []
        for quest in self._scenario_searches:
            ceiling = quest.utility_bound()
            if ceiling is None:
                break
            ratios.append(math.log(ceiling / incumbent.utility[quest.scenario]))
        return upper_mean_log_ratio(ratios, len(self._scenario_searches) - len(ratios))


@dataclass
class _ScenarioSearch:
    """The capacity on one scenario."""

    load_plan: CapacitySearch
    scenario: str
    start: BracketStart
    results: list[LoadPointResult] = field(default_factory=list)

    def __post_init__(self) -> None:
        loads, slo = self.load_plan.load_range, self.load_plan.experiment.slo
        self.search: Bracket | Knee
        if slo.terms or loads.is_rate:
            start = min(max(self.start.load, loads.minimum), loads.maximum)
            self.search = Bracket(loads.minimum, loads.maximum, start, self.start.step, is_integer=not loads.is_rate)
        else:
            self.search = Knee(loads.minimum, loads.maximum, self.start.load)

    def ask(self) -> float | None:
        if self.untrusted_reason or self._is_flat:
            return None
        return self.search.ask()

    @property
    def _is_flat(self) -> bool:
        """Whether no load between the ends of the bracket is worth more than its lower end."""
        if not self.load_plan.stop_when_flat or not isinstance(self.search, Bracket):
            return False
        low, high = self.search.limits()
        if low is None or high is None or not self.search.observations[low].is_conclusive:
            return False
        least, most = self._steady_utility(low), self._steady_utility(high)
        return least is not None and most is not None and most <= (1 + FLAT_GAIN) * least

    def phase_seconds(self, load: float) -> tuple[float, float]:
        """Warm-up and longest window in seconds, long against the requests: a queue needs some to become steady."""
        workload = self.load_plan.experiment.workload()
        seconds = 0.0
        if self.results and (e2e := self.results[-1].metrics.e2e) is not None:
            seconds = e2e.mean * max(1.0, load / load_of(self.results[-1]))
        most = MAX_WINDOW_FACTOR * workload.duration
        warmup = min(max(workload.warmup, MIN_WARMUP_LATENCIES * seconds), most) if workload.warmup else 0.0
        return warmup, min(max(workload.duration, MIN_WINDOW_LATENCIES * seconds), most)

    def tell(self, result: LoadPointResult) -> None:
        again = any(load_of(result) == load_of(other) for other in self.results)
        self.results.append(result)
        load = load_of(result)
        if not again and (is_retryable(result) or self._needs_longer_window(result)):
            return  # asked for once more, with other requests and a window as long as they need
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
        """Whether a longer window may make it steady."""
        return (
            is_too_short(result)
            and self.phase_seconds(load_of(result))[1] > self.load_plan.experiment.workload().duration
        )

    @property
    def untrusted_reason(self) -> str | None:
        """Why a knee is not searched further: throughput, latency and concurrency do not fit together."""
        if isinstance(self.search, Bracket):
            return None
        tries = [result for result in self.results if result.load_point == self.results[-1].load_point]
        checks = [check for result in tries[1:] for check in result.validity if check.name == LITTLES_LAW_CHECK]
        return "the figures do not obey Little's law" if any(not check.ok for check in checks) else None

    def utility_bound(self) -> float | None:
        """The most utility it can have at its capacity; None while no load was too much, or one says nothing.

        Throughput does not fall as load rises, so what it is where the targets are missed bounds it.
        """
        if not isinstance(self.search, Bracket):
            return None
        low, high = self.search.limits()
        done = self.ask() is None and low is not None
        most = self._steady_utility(low if done else high)
        if most is None or high is None or done:
            return most
        seen = self._result_at(high)
        if seen is not None and seen.verdict in UNTRUSTED_VERDICTS:
            return None
        requests = seen.metrics.requests if seen else 1
        return (1 + max(MIN_THROUGHPUT_ERROR, ONE_REQUEST_THROUGHPUT_ERROR / math.sqrt(max(requests, 1)))) * most

    def _steady_utility(self, load: float | None) -> float | None:
        result = self._result_at(load) if load is not None else None
        return steady_state_utility(result, self.load_plan.gpus, self.load_plan.experiment) if result else None

    def _result_at(self, load: float) -> LoadPointResult | None:
        point = self.load_plan.load_range.load_point(self.scenario, load)
        return next((result for result in reversed(self.results) if result.load_point == point), None)

    def capacity(self) -> Capacity:
        unit: Literal["rate", "concurrency"] = "rate" if self.load_plan.load_range.is_rate else "concurrency"
        if isinstance(self.search, Bracket):
            low, high = self.search.limits()
            return Capacity(self.scenario, unit, low or 0.0, high, len(self.results), self._end_reason())
        above = min((load for load in self.search.power if load > self.search.best_load), default=None)
        return Capacity(self.scenario, unit, self.search.best_load, above, len(self.results), self._end_reason())

    def _end_reason(self) -> str:
        if any(result.verdict is Verdict.CLIENT_LIMITED for result in self.results):
            return "the load generator was the limit"
        if isinstance(self.search, Bracket):
            if self._is_flat:
                return "more load brings no more throughput"
            return self.search.end_reason if self.search.ask() is None else "not finished"
        if self.untrusted_reason:
            return self.untrusted_reason
        gain = self.search.elasticity
        if gain is None:
            return "the highest load allowed still pays"
        if gain < MIN_ELASTICITY:
            return "above it, more in flight brings no more throughput"
        return f"above it, 1% more in flight brings {gain:.1f}% more throughput"


def check_capacity(experiment: Experiment) -> None:
    """Refuse to look for the highest load when the objective is best at the lowest."""
    load, chosen = experiment.benchmark, OBJECTIVES[experiment.optimization.objective]
    if load.find_capacity and chosen.at_equal_load:
        raise ConfigError(
            f"{chosen.name} cannot be compared at each candidate's own capacity.",
            why="A latency is best at the lowest load; at its capacity each candidate is as slow as the SLO allows.",
            remedy="Use --objective maximize_throughput, maximize_goodput or minimize_cost.",
        )
    if load.find_capacity and TRACE_RATE in load.request_rates:
        raise ConfigError(
            "A capacity is looked for between two rates, and a trace's own is one.",
            remedy="Give --rate two numbers, between which the trace is stretched.",
        )
    if load.find_capacity and load.num_concurrency and load.request_rates:
        raise ConfigError(
            "A capacity is a concurrency or a rate, not both.", remedy="Leave out --concurrency or --rate."
        )
