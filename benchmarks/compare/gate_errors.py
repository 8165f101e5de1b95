"""How often the gate errs: `python gate_errors.py [--gates N] [--launches N]`.

Simulates gates over launches whose log figures differ by a known change and by normal noise, and counts how they end.
The recorded runs hold three launches of the baseline's winner, two of the new one's, and one of another candidate.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections import Counter

from autotuner.compare.compared_run import ComparedCandidate, ComparedRun, LaunchFigures
from autotuner.compare.comparison import Comparison
from autotuner.compare.gate import GateDecision, GateState, decide, needs_another_pair
from autotuner.compare.pair_limits import MAX_PAIRS, MIN_PAIRS
from autotuner.core import LoadPoint

POINT = LoadPoint("D(1000,200)", concurrency=16)
CONFIG = {
    "task_name": "gate",
    "model": {"id_or_path": "m"},
    "base_runtime": "sim",
    "parameters": {},
    "optimization": {"objective": "maximize_throughput"},
    "benchmark": {"traffic_scenarios": [POINT.scenario], "num_concurrency": [POINT.concurrency]},
}
CHANGES = (0.0, -0.02, -0.03, -0.06, -0.10, 0.06)
NOISES = (0.005, 0.01, 0.02, 0.04)


def run_of(name: str, log_utilities: list[float], shares: list[float]) -> ComparedRun:
    """A run whose winner had these launches, all but the first for confirmation."""
    launches = tuple(
        LaunchFigures(number, number > 0, {}, {POINT: math.exp(log)}, {POINT: share})
        for number, (log, share) in enumerate(zip(log_utilities, shares, strict=True))
    )
    winner = ComparedCandidate("winner", "winner", "sim", {}, 1, launches, {POINT: "feasible"})
    return ComparedRun(name, CONFIG, ("simulated",), {}, {"winner": winner}, "winner", (POINT,), 1000.0)


class SimulatedGate:
    """Launches with a true relative `change` between the sides, and log-normal noise of standard deviation `sd`."""

    def __init__(self, change: float, sd: float, rng: random.Random) -> None:
        self.means = {"baseline": 7.0, "new": 7.0 + math.log1p(change)}
        self.sd = sd
        self.rng = rng

    def run(self, side: str, launches: int) -> ComparedRun:
        logs = [self.rng.gauss(self.means[side], self.sd) for _ in range(launches)]
        return run_of(side, logs, [1.0] * launches)

    def end(self, max_launches: int) -> tuple[GateState, int]:
        """The state with fresh pairs as the command adds them, and how many there were."""
        comparison = Comparison(self.run("baseline", 3), self.run("new", 3))
        decisions: list[GateDecision] = []
        pairs: tuple[tuple[ComparedRun, ComparedRun], ...] = ()
        for number in range(1, max_launches + 1):
            pairs = (*pairs, (self.run("baseline", 1), self.run("new", 1)))
            if number < MIN_PAIRS:
                continue
            decisions.append(decide(Comparison(comparison.baseline, comparison.new, pairs=pairs)))
            if not needs_another_pair(decisions):
                break
        return decisions[-1].state, len(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gates", type=int, default=1500)
    parser.add_argument("--launches", type=int, default=MAX_PAIRS)
    options = parser.parse_args()
    rng = random.Random(0)
    out = sys.stdout
    out.write(f"{options.gates} gates each, up to {options.launches} fresh pairs, tolerance 3%\n")
    out.write("launch sd   true change   passes    worse   unclear   pairs\n")
    for sd in NOISES:
        for change in CHANGES:
            ends = [SimulatedGate(change, sd, rng).end(options.launches) for _ in range(options.gates)]
            counts = Counter(state for state, _ in ends)
            shares = "  ".join(f"{counts[state] / options.gates:7.1%}" for state in GateState)
            pairs = sum(number for _, number in ends) / options.gates
            out.write(f"{sd:9.1%}   {change:+11.0%}  {shares}   {pairs:5.1f}\n")


if __name__ == "__main__":
    main()
