"""How often a load point that ended early has the wrong verdict, compared with long runs of the same load point.

    python benchmarks/search/decisions.py --worlds 60 --processes 2 --write docs/reference/figures.md

In each world one candidate is measured at loads around its predicted capacity, once as a search does it and once for
long enough to know the attainment. Decisions count where the attainment of the long run lies outside the indifference
band of the sequential test.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from worlds import WINDOW, World, worlds

from autotuner.core import LoadPlanSummary, LoadPoint, LoadPointResult, LoadStep, Workload
from autotuner.evaluate.simulated import SimulatedEvaluator
from autotuner.run_setup import RunSetup
from autotuner.scoring.intervals import wilson_share
from autotuner.scoring.reasons import MEETS_TARGETS, MISSES_TARGETS
from autotuner.scoring.sequential import SequentialStopRule, WaldSprt, decision_stop_rule
from autotuner.search.capacity import MAX_UNDECIDED_WINDOWS
from autotuner.search.forecast import Forecasts
from autotuner.search.problem import Problem

LOAD_FACTORS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
"""Loads relative to the predicted capacity."""
LONG_RUN_WINDOWS = 20
MARKS = "<!-- decisions -->", "<!-- end of decisions -->"


@dataclass(frozen=True)
class Decision:
    """A load point: the verdict after `requests` requests, None if undecided, and the attainment in a long run."""

    world: str
    load: int
    verdict: str | None
    requests: int
    attainment: float
    band: tuple[float, float]

    @property
    def is_wrong(self) -> bool:
        """Whether the verdict contradicts a long run outside the band."""
        low, high = self.band
        return (self.verdict == MEETS_TARGETS and self.attainment < low) or (
            self.verdict == MISSES_TARGETS and self.attainment > high
        )

    @property
    def is_outside_band(self) -> bool:
        low, high = self.band
        return not low <= self.attainment <= high


class SingleLoadPoint:
    """A load plan of one load point."""

    max_load_points = 1
    outcome = LoadPlanSummary()

    def __init__(self, step: LoadStep) -> None:
        self.step: LoadStep | None = step

    def ask(self) -> LoadStep | None:
        """The load point, until its result is told."""
        return self.step

    def tell(self, result: LoadPointResult) -> None:
        self.step = None


def decide(world: World) -> list[Decision]:
    """Measure one candidate of a world at all loads, in short and in long runs."""
    session = RunSetup.from_experiment(world.experiment(find_capacity=True))
    candidates = session.space.candidates
    candidate = candidates[world.number % len(candidates)]
    problem = Problem(session.space, session.experiment, predict=session.forecaster.predict)
    forecast = Forecasts(problem).forecast(candidate)
    if forecast is None or not forecast.meets_targets:
        return []
    loads = sorted({max(1, round(factor * forecast.capacities[world.scenario])) for factor in LOAD_FACTORS})
    return [decision for load in loads if (decision := _decision_at(load, world, session, candidates.index(candidate)))]


def _decision_at(load: int, world: World, session: RunSetup, index: int) -> Decision | None:
    slo, point = session.experiment.slo, LoadPoint(world.scenario, concurrency=load)
    rule = decision_stop_rule(slo, point, min_seconds=WINDOW, max_seconds=MAX_UNDECIDED_WINDOWS * WINDOW)
    short = _measure(LoadStep(_workload(session, point, MAX_UNDECIDED_WINDOWS + 1, 0), rule), session, index)
    long = _measure(
        LoadStep(
            _workload(session, point, LONG_RUN_WINDOWS + 4, 1),
            SequentialStopRule((), min_seconds=LONG_RUN_WINDOWS * WINDOW, max_seconds=LONG_RUN_WINDOWS * WINDOW),
        ),
        session,
        index,
    )
    if short is None or long is None or long.metrics.attainment is None:
        return None
    band = WaldSprt(slo.attainment).indifference_bounds
    verdict = short.decided if short.decided in (MEETS_TARGETS, MISSES_TARGETS) else None
    return Decision(world.name, load, verdict, short.metrics.requests, long.metrics.attainment.value, band)


def _workload(session: RunSetup, point: LoadPoint, windows: float, seed: int) -> Workload:
    workload = session.experiment.workload().for_load_point(point)
    return replace(workload, max_duration=windows * WINDOW, seed=workload.seed + seed)


def _measure(step: LoadStep, session: RunSetup, index: int) -> LoadPointResult | None:
    evaluator = SimulatedEvaluator(session.experiment, session.engine, keep_records=False)
    results = evaluator.evaluate(session.space.candidates[index], SingleLoadPoint(step), Path()).load_points
    return results[0] if results else None


def summary(decisions: Sequence[Decision]) -> str:
    """The counts, in a sentence."""
    outside = [one for one in decisions if one.is_outside_band]
    decided = [one for one in outside if one.verdict]
    wrong = wilson_share(sum(one.is_wrong for one in decided), len(decided))
    assert wrong is not None
    within = len(decisions) - len(outside)
    requests = sorted(one.requests for one in decided)
    world_count = len({one.world for one in decisions})
    return (
        f"Of {len(decisions)} load points in {world_count} worlds the share of good requests lies "
        f"within the band in {within}. Of the other {len(outside)}, {len(decided)} were decided, after "
        f"{requests[0]} to {requests[-1]} requests (median {requests[len(requests) // 2]}), and "
        f"{sum(one.is_wrong for one in decided)} of them wrongly: {wrong.value:.1%} (95% interval {wrong.low:.1%} to "
        f"{wrong.high:.1%})."
    )


def main() -> None:
    """Measure all worlds and print the share of wrong decisions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=60)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", type=Path, help="page whose sentence is replaced")
    options = parser.parse_args()
    decisions: list[Decision] = []
    with get_context("spawn").Pool(options.processes) as pool:
        for batch in pool.imap_unordered(decide, worlds(options.worlds)):
            decisions += batch
            for one in batch:
                if one.is_wrong and one.is_outside_band:
                    print(f"wrong: {one}", flush=True)
    text = summary(decisions)
    print(text)
    if options.write:
        begin, end = MARKS
        page = options.write.read_text()
        options.write.write_text(re.sub(f"{begin}.*{end}", f"{begin}\n{text}\n{end}", page, flags=re.DOTALL))


if __name__ == "__main__":
    main()
