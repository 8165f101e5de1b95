"""The course that finds, for each scenario, the highest load at which a server meets its targets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from autotuner.core import Capacity, LoadPoint, LoadPointResult, LoadStep, Outcome, Verdict
from autotuner.errors import ConfigError
from autotuner.experiment import RECORDED, Experiment
from autotuner.scoring.judge import judge_load_point
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.pool import UNTRUSTED
from autotuner.scoring.sequential import decided
from autotuner.search.bracket import Bracket
from autotuner.search.hope import at_best
from autotuner.search.knee import Knee
from autotuner.search.margins import LITTLE, is_clear, is_unsteady, load_of, margin, may_be_chance, slack, steady

WARMUP, WINDOW, LONGEST = 1.0, 3.0, 6.0
"""Mean requests a warm-up and a window last at least; a window is no longer than LONGEST times the configured one."""

PATIENCE = 3.0
"""Windows that a load point may last until its answer is clear."""

SLACK, ROUGH = 0.03, 0.5
"""What the throughput at a load may be off by, as a share, and over the root of the requests behind it."""

GAIN = 0.025
"""A gain, as a share, for which the load at which a candidate is compared is not raised further."""

WORTH = 0.04
"""A gain, as a share, below which two candidates are as good as each other."""

LEAST_GAIN = 0.05
"""Per cent of throughput for one of load that are told from none."""


@dataclass(frozen=True)
class Start:
    """Where the search for a capacity begins, and by what factor its first step goes up or down."""

    load: float
    step: float = 2.0


@dataclass(frozen=True)
class Floor:
    """What has to be beaten: the steady utility of trial `trial` at its capacity, by scenario."""

    trial: int
    utility: Mapping[str, float]


@dataclass(frozen=True)
class Range:
    """The loads that may be tried, concurrencies or rates in 1/s."""

    least: float
    most: float
    rates: bool

    @classmethod
    def of(cls, experiment: Experiment) -> Range:
        """From the lowest to the highest load of the experiment."""
        load = experiment.benchmark
        values = load.num_concurrency or load.named_rates
        return cls(float(min(values)), float(max(values)), rates=not load.num_concurrency)

    def point(self, scenario: str, load: float) -> LoadPoint:
        """One of them, on a scenario."""
        return LoadPoint(scenario, rate=load) if self.rates else LoadPoint(scenario, concurrency=int(load))


class CapacityCourse:
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
        starts: Mapping[str, Start] | None = None,
        floor: Floor | None = None,
        *,
        by_utility: bool = False,
    ) -> None:
        self.experiment = experiment
        self.gpus = gpus
        self.floor = floor
        self.by_utility = by_utility
        self.range = Range.of(experiment)
        self._workload = experiment.workload()
        scenarios = dict.fromkeys(experiment.benchmark.traffic_scenarios)
        self._quests = [_Quest(self, name, (starts or {}).get(name, Start(self.range.least))) for name in scenarios]
        self._gave_up: str | None = None

    @property
    def total(self) -> int:
        """About how many load points it takes at most: doubling up to the highest load, then bisection."""
        doublings = math.ceil(math.log2(max(self.range.most / self.range.least, 1))) + 1
        return len(self._quests) * (doublings + 5)

    @property
    def longest(self) -> tuple[float, float]:
        """Seconds that a warm-up and a window last at most."""
        most = LONGEST * self._workload.duration
        return most if self._workload.warmup else 0.0, (PATIENCE + 1) * most

    def ask(self) -> LoadStep | None:
        """The next load point."""
        if self._gave_up:
            return None
        for quest in self._quests:
            load = quest.ask()
            if load is not None:
                again = sum(result.load_point == self.range.point(quest.scenario, load) for result in quest.results)
                warmup, seconds = quest.times(load)
                most = PATIENCE * seconds
                point = self.range.point(quest.scenario, load)
                stop = decided(self.experiment.slo, point, least=seconds, most=most)
                seed = self._workload.seed + again
                workload = replace(self._workload, seed=seed, warmup=warmup, duration=seconds, longest=most + seconds)
                return LoadStep(workload.at(point), stop)
        return None

    def tell(self, result: LoadPointResult) -> None:
        """Take note of what it came to."""
        quest = next(quest for quest in self._quests if quest.scenario == result.load_point.scenario)
        quest.tell(judge_load_point(result, self.gpus, self.experiment))
        if self.floor is not None and self.ask() is not None and self._hope(self.floor) <= math.log(1 + WORTH):
            self._gave_up = f"cannot beat trial {self.floor.trial}"

    @property
    def outcome(self) -> Outcome:
        """The capacities found so far."""
        found = tuple(quest.capacity() for quest in self._quests if quest.results)
        return Outcome(found, self._gave_up, self._ceiling())

    def _ceiling(self) -> float | None:
        hope = self._hope(self.floor) if self.floor and self._gave_up else math.inf
        if self.floor is None or not math.isfinite(hope):
            return None
        logs = [math.log(value) for value in self.floor.utility.values()]
        return math.exp(hope + math.fsum(logs) / len(logs))

    def _hope(self, floor: Floor) -> float:
        """The log of how many times better than the floor the candidate can still turn out."""
        ratios = []
        for quest in self._quests:
            ceiling = quest.ceiling()
            if ceiling is None:
                break
            ratios.append(math.log(ceiling / floor.utility[quest.scenario]))
        return at_best(ratios, len(self._quests) - len(ratios))


@dataclass
class _Quest:
    """The capacity on one scenario."""

    course: CapacityCourse
    scenario: str
    start: Start
    results: list[LoadPointResult] = field(default_factory=list)

    def __post_init__(self) -> None:
        loads, slo = self.course.range, self.course.experiment.slo
        self.search: Bracket | Knee
        if slo.terms or loads.rates:
            start = min(max(self.start.load, loads.least), loads.most)
            self.search = Bracket(loads.least, loads.most, start, self.start.step, whole=not loads.rates)
        else:
            self.search = Knee(loads.least, loads.most, self.start.load)

    def ask(self) -> float | None:
        if self.untrusted or self._flat:
            return None
        return self.search.ask()

    @property
    def _flat(self) -> bool:
        """Whether no load between the ends of the bracket is worth more than its lower end."""
        if not self.course.by_utility or not isinstance(self.search, Bracket):
            return False
        low, high = self.search.limits()
        if low is None or high is None or not self.search.tried[low].clear:
            return False
        least, most = self._steady(low), self._steady(high)
        return least is not None and most is not None and most <= (1 + GAIN) * least

    def times(self, load: float) -> tuple[float, float]:
        """Warm-up and longest window in seconds, long against the requests: a queue needs some to become steady."""
        workload = self.course.experiment.workload()
        seconds = 0.0
        if self.results and (e2e := self.results[-1].metrics.e2e) is not None:
            seconds = e2e.mean * max(1.0, load / load_of(self.results[-1]))
        most = LONGEST * workload.duration
        warmup = min(max(workload.warmup, WARMUP * seconds), most) if workload.warmup else 0.0
        return warmup, min(max(workload.duration, WINDOW * seconds), most)

    def tell(self, result: LoadPointResult) -> None:
        again = any(load_of(result) == load_of(other) for other in self.results)
        self.results.append(result)
        load = load_of(result)
        if not again and (may_be_chance(result) or self._is_short(result)):
            return  # asked for once more, with other requests and a window as long as they need
        if isinstance(self.search, Bracket):
            experiment = self.course.experiment
            self.search.tell(
                load,
                margin(result, experiment),
                result.metrics.requests,
                clear=is_clear(result),
                slack=slack(result, experiment),
            )
        elif result.metrics.e2e is not None:
            self.search.tell(load, result.metrics.request_throughput, result.metrics.e2e.mean)
        else:
            self.search.tell(load, 0.0, 0.0)

    def _is_short(self, result: LoadPointResult) -> bool:
        """Whether a longer window may make it steady."""
        return is_unsteady(result) and self.times(load_of(result))[1] > self.course.experiment.workload().duration

    @property
    def untrusted(self) -> str | None:
        """Why a knee is not searched further: throughput, latency and concurrency do not fit together."""
        if isinstance(self.search, Bracket):
            return None
        tries = [result for result in self.results if result.load_point == self.results[-1].load_point]
        checks = [check for result in tries[1:] for check in result.validity if check.name == LITTLE]
        return "the figures do not obey Little's law" if any(not check.ok for check in checks) else None

    def ceiling(self) -> float | None:
        """The most utility it can have at its capacity; None while no load was too much, or one says nothing.

        Throughput does not fall as load rises, so what it is where the targets are missed bounds it.
        """
        if not isinstance(self.search, Bracket):
            return None
        low, high = self.search.limits()
        done = self.ask() is None and low is not None
        most = self._steady(low if done else high)
        if most is None or high is None or done:
            return most
        seen = self._at(high)
        if seen is not None and seen.verdict in UNTRUSTED:
            return None
        requests = seen.metrics.requests if seen else 1
        return (1 + max(SLACK, ROUGH / math.sqrt(max(requests, 1)))) * most

    def _steady(self, load: float | None) -> float | None:
        result = self._at(load) if load is not None else None
        return steady(result, self.course.gpus, self.course.experiment) if result else None

    def _at(self, load: float) -> LoadPointResult | None:
        point = self.course.range.point(self.scenario, load)
        return next((result for result in reversed(self.results) if result.load_point == point), None)

    def capacity(self) -> Capacity:
        unit: Literal["rate", "concurrency"] = "rate" if self.course.range.rates else "concurrency"
        if isinstance(self.search, Bracket):
            low, high = self.search.limits()
            return Capacity(self.scenario, unit, low or 0.0, high, len(self.results), self._reason())
        above = min((load for load in self.search.power if load > self.search.best), default=None)
        return Capacity(self.scenario, unit, self.search.best, above, len(self.results), self._reason())

    def _reason(self) -> str:
        if any(result.verdict is Verdict.CLIENT_LIMITED for result in self.results):
            return "the load generator was the limit"
        if isinstance(self.search, Bracket):
            if self._flat:
                return "more load brings no more throughput"
            return self.search.reason if self.search.ask() is None else "not finished"
        if self.untrusted:
            return self.untrusted
        gain = self.search.gain
        if gain is None:
            return "the highest load allowed still pays"
        if gain < LEAST_GAIN:
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
    if load.find_capacity and RECORDED in load.request_rates:
        raise ConfigError(
            "A capacity is looked for between two rates, and a trace's own is one.",
            remedy="Give --rate two numbers, between which the trace is stretched.",
        )
    if load.find_capacity and load.num_concurrency and load.request_rates:
        raise ConfigError(
            "A capacity is a concurrency or a rate, not both.", remedy="Leave out --concurrency or --rate."
        )
