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

from autotuner.core import LoadPoint, LoadPointResult, LoadStep, Outcome, Workload
from autotuner.evaluate.simulated import SimulatedEvaluator
from autotuner.scoring.intervals import share
from autotuner.scoring.reasons import MEETS, MISSES
from autotuner.scoring.sequential import Enough, Wald, decided
from autotuner.search.capacity import PATIENCE
from autotuner.search.forecast import Prior
from autotuner.search.problem import Problem
from autotuner.session import Wiring, wire

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
        return (self.said == MEETS and self.share < low) or (self.said == MISSES and self.share > high)

    @property
    def outside(self) -> bool:
        """Whether the long run's share lies outside the band."""
        low, high = self.edges
        return not low <= self.share <= high


class Once:
    """A course of one load point."""

    total = 1
    outcome = Outcome()

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
    wiring = wire(world.experiment(find_capacity=True))
    candidates = wiring.space.candidates
    candidate = candidates[world.number % len(candidates)]
    problem = Problem(wiring.space, wiring.experiment, predict=wiring.foresight.predict)
    expected = Prior(problem).expect(candidate)
    if expected is None or not expected.meets:
        return []
    loads = sorted({max(1, round(around * expected.loads[world.scenario])) for around in AROUND})
    return [found for load in loads if (found := _at(load, world, wiring, candidates.index(candidate)))]


def _at(load: int, world: World, wiring: Wiring, index: int) -> Decision | None:
    slo, point = wiring.experiment.slo, LoadPoint(world.scenario, concurrency=load)
    rule = decided(slo, point, least=WINDOW, most=PATIENCE * WINDOW)
    short = _drive(LoadStep(_workload(wiring, point, PATIENCE + 1, 0), rule), wiring, index)
    long = _drive(
        LoadStep(_workload(wiring, point, LONG + 4, 1), Enough((), least=LONG * WINDOW, most=LONG * WINDOW)),
        wiring,
        index,
    )
    if short is None or long is None or long.metrics.attainment is None:
        return None
    edges = Wald(slo.attainment).edges
    said = short.decided if short.decided in (MEETS, MISSES) else None
    return Decision(world.name, load, said, short.metrics.requests, long.metrics.attainment.value, edges)


def _workload(wiring: Wiring, point: LoadPoint, windows: float, seed: int) -> Workload:
    given = wiring.experiment.workload().at(point)
    return replace(given, longest=windows * WINDOW, seed=given.seed + seed)


def _drive(step: LoadStep, wiring: Wiring, index: int) -> LoadPointResult | None:
    evaluator = SimulatedEvaluator(wiring.experiment, wiring.engine, keep_records=False)
    results = evaluator.evaluate(wiring.space.candidates[index], Once(step), Path()).load_points
    return results[0] if results else None


def summary(found: Sequence[Decision]) -> str:
    """The counts, in a sentence."""
    outside = [one for one in found if one.outside]
    decided = [one for one in outside if one.said]
    wrong = share(sum(one.wrong for one in decided), len(decided))
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
