"""A run as every renderer takes it: judged, ranked and pooled once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from autotuner.core import LoadPoint, LoadPointResult, Trial
from autotuner.experiment import Experiment
from autotuner.report.candidate_names import CandidateNames
from autotuner.report.pooling import PooledCandidate, pool_launches
from autotuner.report.refused import RefusedCandidates
from autotuner.runs.forecasts import LayoutForecast
from autotuner.runs.store import RunStore, paused_garbage_collection
from autotuner.scoring.conclusion import Conclusion, conclude
from autotuner.scoring.judge import judge
from autotuner.scoring.pareto import AXES, ParetoPoint, is_trusted, pareto_points
from autotuner.scoring.pool import CandidateLaunches, group_by_candidate
from autotuner.scoring.rank import Ranking, rank
from autotuner.search.protocol import EMPTY_REPORT, SearchReport

FRONTIER_AXES = ("throughput", "interactivity", "ttft")


@dataclass(frozen=True)
class RunView:
    """A run, finished or not: its judged trials, their ranking, and what follows from both.

    `environments` are the hosts it ran on, one after another; empty where they were not recorded. `forecasts` are what
    was predicted of layouts that it did not launch.
    """

    experiment: Experiment
    trials: tuple[Trial, ...]
    ranking: Ranking
    refused: RefusedCandidates = ()
    search_report: SearchReport = EMPTY_REPORT
    environments: tuple[Mapping[str, Any], ...] = ()
    forecasts: tuple[LayoutForecast, ...] = ()

    @classmethod
    def of(
        cls,
        trials: Iterable[Trial],
        experiment: Experiment,
        *,
        refused: RefusedCandidates = (),
        search_report: SearchReport = EMPTY_REPORT,
        environments: Iterable[Mapping[str, Any]] = (),
        forecasts: Iterable[LayoutForecast] = (),
        are_judged: bool = False,
    ) -> RunView:
        """The view of trials, which `are_judged` where the experiment's verdicts are in them already."""
        with paused_garbage_collection():
            judged = tuple(trials if are_judged else (judge(trial, experiment) for trial in trials))
            ranking = rank(judged, experiment, are_judged=True)
        return cls(experiment, judged, ranking, refused, search_report, tuple(environments), tuple(forecasts))

    @classmethod
    def from_store(cls, store: RunStore, *, summarized: bool = False) -> RunView:
        """The view of a run folder; with `summarized` its trials have no more than `RunStore.summaries`."""
        return cls.of(
            store.summaries() if summarized else store.trials(),
            store.experiment,
            refused=store.load_refused(),
            search_report=SearchReport(*store.load_search()),
            environments=store.environments(),
            forecasts=store.load_forecasts(),
            are_judged=summarized,
        )

    @cached_property
    def names(self) -> CandidateNames:
        return CandidateNames.from_ranking(self.ranking)

    @cached_property
    def conclusion(self) -> Conclusion:
        """How the winner compares with the engine's defaults, with the confirmed gain."""
        return conclude(self.ranking, self.trials, self.experiment)

    @cached_property
    def launches(self) -> list[CandidateLaunches]:
        """The trials by candidate, in the order of each candidate's first launch."""
        return group_by_candidate(self.trials)

    @cached_property
    def pooled(self) -> dict[int, PooledCandidate]:
        """Each candidate with figures pooled over its launches, by the number of its trial in the ranking."""
        candidates = (pool_launches(launches, self.experiment.slo) for launches in self.launches)
        return {candidate.trial.number: candidate for candidate in candidates}

    @cached_property
    def pooled_trials(self) -> list[Trial]:
        """Each candidate as one trial with pooled figures."""
        return [candidate.trial for candidate in self.pooled.values()]

    @cached_property
    def frontier(self) -> list[ParetoPoint]:
        """The pooled load points not dominated in output tokens/s per GPU, interactivity and TTFT."""
        points = pareto_points(self.pooled_trials, self.experiment, [AXES[name] for name in FRONTIER_AXES])
        return [point for point in points if point.on_frontier]

    @cached_property
    def _frontier_members(self) -> set[tuple[str, LoadPoint]]:
        return {(point.trial.candidate.key, point.result.load_point) for point in self.frontier}

    def is_on_frontier(self, trial: Trial, result: LoadPointResult) -> bool:
        """Whether a trial's result is trusted, and its candidate is on the frontier with that load point."""
        return is_trusted(trial, result) and (trial.candidate.key, result.load_point) in self._frontier_members
