"""How often a load point that was ended early is decided wrongly, against long runs of the same load point.

    python benchmarks/search/decisions.py --worlds 60 --processes 2 --write docs/reference/figures.md

In each world one candidate is driven at loads around its predicted capacity, once as a search
drives it and once for as long as it takes to know the share of good requests. Decisions count
where that share lies outside the indifference band.
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
from autotuner.scoring.intervals import wilson_share
from autotuner.scoring.reasons import MEETS_TARGETS, MISSES_TARGETS
from autotuner.scoring.sequential import SequentialStopRule, WaldSprt, decision_stop_rule
from autotuner.search.capacity import MAX_UNDECIDED_WINDOWS
from autotuner.search.forecast import Forecasts
from autotuner.search.problem import Problem
from autotuner.session import Session, session_for

AROUND = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
"""Loads over the predicted capacity."""
LONG = 20
"""Windows of a long run."""
MARKS = "<!-- decisions -->", "<!-- end of decisions -->"


@dataclass(frozen=True)
class Decision:
    """One load point: what was decided after `requests`, and the share of good requests in a long run."""

    world: str
    load: int
    said: str | None
    requests: int
    share: float
    edges: tuple[float, float]

    @property
    def wrong(self) -> bool:
        """Whether it says the contrary of a share outside the band."""
        low, high = self.edges
        return (self.said == MEETS_TARGETS and self.share < low) or (self.said == MISSES_TARGETS and self.share > high)

    @property
    def outside(self) -> bool:
        """Whether the long run's share lies outside the band."""
        low, high = self.edges
        return not low <= self.share <= high


class Once:
    """A course of one load point."""

    max_load_points = 1
    outcome = LoadPlanSummary()

    def __init__(self, step: LoadStep) -> None:
        self.step: LoadStep | None = step

    def ask(self) -> LoadStep | None:
        """The load point, until it was told."""
        return self.step

    def tell(self, result: LoadPointResult) -> None:
        """Nothing is left."""
        self.step = None


def decide(world: World) -> list[Decision]:
    """Drive one candidate of a world at all loads, short and long."""
    wiring = session_for(world.experiment(find_capacity=True))
    candidates = wiring.space.candidates
    candidate = candidates[world.number % len(candidates)]
    problem = Problem(wiring.space, wiring.experiment, predict=wiring.forecaster.predict)
    expected = Forecasts(problem).forecast(candidate)
    if expected is None or not expected.meets_targets:
        return []
    loads = sorted({max(1, round(around * expected.capacities[world.scenario])) for around in AROUND})
    return [found for load in loads if (found := _at(load, world, wiring, candidates.index(candidate)))]


def _at(load: int, world: World, wiring: Session, index: int) -> Decision | None:
    slo, point = wiring.experiment.slo, LoadPoint(world.scenario, concurrency=load)
    rule = decision_stop_rule(slo, point, min_seconds=WINDOW, max_seconds=MAX_UNDECIDED_WINDOWS * WINDOW)
    short = _drive(LoadStep(_workload(wiring, point, MAX_UNDECIDED_WINDOWS + 1, 0), rule), wiring, index)
    long = _drive(
        LoadStep(
            _workload(wiring, point, LONG + 4, 1),
            SequentialStopRule((), min_seconds=LONG * WINDOW, max_seconds=LONG * WINDOW),
        ),
        wiring,
        index,
    )
    if short is None or long is None or long.metrics.attainment is None:
        return None
    edges = WaldSprt(slo.attainment).indifference_bounds
    said = short.decided if short.decided in (MEETS_TARGETS, MISSES_TARGETS) else None
    return Decision(world.name, load, said, short.metrics.requests, long.metrics.attainment.value, edges)


def _workload(wiring: Session, point: LoadPoint, windows: float, seed: int) -> Workload:
    given = wiring.experiment.workload().for_load_point(point)
    return replace(given, longest=windows * WINDOW, seed=given.seed + seed)


def _drive(step: LoadStep, wiring: Session, index: int) -> LoadPointResult | None:
    evaluator = SimulatedEvaluator(wiring.experiment, wiring.engine, keep_records=False)
    results = evaluator.evaluate(wiring.space.candidates[index], Once(step), Path()).load_points
    return results[0] if results else None


def summary(found: Sequence[Decision]) -> str:
    """The counts, in a sentence."""
    outside = [one for one in found if one.outside]
    decided = [one for one in outside if one.said]
    wrong = wilson_share(sum(one.wrong for one in decided), len(decided))
    assert wrong is not None
    within = len(found) - len(outside)
    requests = sorted(one.requests for one in decided)
    return (
        f"Of {len(found)} load points in {len({one.world for one in found})} worlds the share of good requests lies "
        f"within the band in {within}. Of the other {len(outside)}, {len(decided)} were decided, after "
        f"{requests[0]} to {requests[-1]} requests (median {requests[len(requests) // 2]}), and "
        f"{sum(one.wrong for one in decided)} of them wrongly: {wrong.value:.1%} (95% interval {wrong.low:.1%} to "
        f"{wrong.high:.1%})."
    )


def main() -> None:
    """Drive all worlds and say how many decisions were wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=60)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", type=Path, help="page whose sentence is replaced")
    given = parser.parse_args()
    found: list[Decision] = []
    with get_context("spawn").Pool(given.processes) as pool:
        for some in pool.imap_unordered(decide, worlds(given.worlds)):
            found += some
            for one in some:
                if one.wrong and one.outside:
                    print(f"wrong: {one}", flush=True)
    text = summary(found)
    print(text)
    if given.write:
        begin, end = MARKS
        page = given.write.read_text()
        given.write.write_text(re.sub(f"{begin}.*{end}", f"{begin}\n{text}\n{end}", page, flags=re.DOTALL))


if __name__ == "__main__":
    main()
