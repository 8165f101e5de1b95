"""Whether default settings name the winner of runs thirty times as long, and whether their intervals hold.

    python benchmarks/scoring/long_runs.py --worlds 48 --processes 2

In each world a handful of candidates and the engine's defaults are tuned in virtual time, as `autotune
run` does it with windows of 20 s, and then driven once for 600 s at every load point with other
seeds. A winner is right when the long run has the same one, or one that is declared tied with it, or
one that the search left out because it could not be better by the share at which it stops.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "search"))

from strategies import InMemoryRecord

from autotuner.core import LoadPointResult, Trial, Verdict
from autotuner.evaluate.serial import SerialExecutor
from autotuner.evaluate.simulated import SimulatedEvaluator
from autotuner.experiment import Experiment
from autotuner.scoring.confirm import confirmed_gain
from autotuner.scoring.intervals import wilson_share
from autotuner.scoring.judge import judge
from autotuner.scoring.pool import UNTRUSTED_VERDICTS
from autotuner.scoring.rank import Ranking, rank
from autotuner.search.capacity import WORTHWHILE_GAIN
from autotuner.search.launch import ListedLoads
from autotuner.session import session_for
from autotuner.tune import tune

LONG, LONG_WARMUP, OTHER_SEED = 600.0, 30.0, 77_000
ROUNDING = 0.001
"""How far a long run may lie outside an interval: a world without chance has none at all."""

MODELS = (("llama-3.1-8b", [1, 2]), ("qwen3-32b", [2, 4]), ("qwen3-30b-a3b", [1, 2]), ("llama-3.1-8b", [1]))
GPUS = ("h100_sxm", "a100_sxm", "h200_sxm")
SCENARIOS = (
    "D(1000,1000)",
    "N(1000,300)/(200,60)",
    "D(100,100)",
    "U(100,4000)/(50,400)",
    "D(4000,250)",
    "N(300,100)/(600,150)",
    "D(2000,100)",
)
SPACES = (
    {"enable-chunked-prefill": [True, False], "max-batched-tokens": [2048, 8192]},
    {"max-running-requests": [16, 64], "enable-chunked-prefill": [True, False]},
    {"max-batched-tokens": [1024, 4096, 16384]},
    {"kv-block-size": [16, 32], "enable-chunked-prefill": [True, False]},
    {"cuda-graph": [True, False], "max-batched-tokens": [2048, 8192]},
)
LOADS = ([1, 4], [4, 8, 16], [16, 32, 64], [32], [48, 96])
OBJECTIVES = (
    "maximize_throughput",
    "minimize_latency",
    "maximize_goodput",
    "minimize_ttft",
    "minimize_cost",
    "minimize_tpot",
)
TARGETS: tuple[dict[str, Any], ...] = (
    {},
    {"ttft": 2.0, "tpot": 0.04},
    {"latency": {"p90": 40.0}, "tpot": 0.06},
    {"ttft": {"mean": 3.0}},
)


def worlds(count: int, strategy: str) -> Iterator[tuple[int, Experiment]]:
    """Numbered experiments; the axes have coprime periods, so that every value meets the others'."""
    axes = zip(
        cycle(MODELS),
        cycle(GPUS),
        cycle(SCENARIOS),
        cycle(SPACES),
        cycle((*LOADS, *LOADS[:4])),
        cycle((*OBJECTIVES, *OBJECTIVES[:5])),
        cycle((*TARGETS, *TARGETS, *TARGETS, TARGETS[1])),
        strict=False,
    )
    for number, (model, gpu, scenario, space, loads, objective, slo) in enumerate(islice(axes, count)):
        given = {
            "task_name": f"world {number}",
            "model": {"id_or_path": model[0]},
            "base_runtime": "sim",
            "runtime": {"extra_args": ["--load-seconds", "30", "--no-prefix-caching"]},
            "parameters": {"tp-size": model[1], **space},
            "optimization": {
                "strategy": strategy,
                "evaluator": "simulated",
                "objective": objective,
                "max_iterations": 20,
                "timeout_per_iteration": 1e6,
            },
            "benchmark": {"traffic_scenarios": [scenario], "num_concurrency": loads, "seed": number},
            "slo": slo,
            "simulate": {"gpu": gpu, "skew": {"seed": number, "sd": 0.2}},
        }
        yield number, Experiment.model_validate(given)


@dataclass
class Outcome:
    """What one world came to."""

    number: int
    text: str
    right: bool
    covered: dict[str, list[bool]]
    outside: list[str]
    seconds: list[float]


def compare(world: tuple[int, Experiment]) -> Outcome:
    """Tune a world at default settings and hold it against long runs."""
    number, experiment = world
    wiring = session_for(experiment)
    with tempfile.TemporaryDirectory() as folder:
        record = InMemoryRecord(Path(folder))
        short = tune(experiment, wiring.create_searcher(), _executor(wiring, experiment), record)
        long_trials = _long(experiment, wiring, record.trials(), Path(folder))
    long = rank(long_trials, experiment)
    covered, outside = _coverage(record.trials(), long_trials, experiment)
    _gain_coverage(short, long, record.trials(), experiment, covered, outside)
    right, how = _right(short, long)
    load = experiment.benchmark
    text = (
        f"{number:3d} {experiment.optimization.objective} {load.traffic_scenarios[0]} {list(load.num_concurrency)} "
        f"{experiment.model.id_or_path}: {how}"
    )
    seconds = [trial.measurement.timings.get("load", 0.0) / max(1, len(trial.results)) for trial in record.trials()]
    return Outcome(number, text, right, covered, outside, seconds)


def _executor(wiring: Any, experiment: Experiment) -> SerialExecutor:
    return SerialExecutor(SimulatedEvaluator(experiment, wiring.engine, keep_records=False))


def _long(experiment: Experiment, wiring: Any, trials: Sequence[Trial], folder: Path) -> list[Trial]:
    """Every candidate once, whether or not the search launched it."""
    changed = experiment.benchmark.model_copy(
        update={
            "duration": LONG,
            "max_duration": LONG,
            "warmup": LONG_WARMUP,
            "seed": experiment.benchmark.seed + OTHER_SEED,
        }
    )
    longer = experiment.model_copy(update={"benchmark": changed})
    evaluator = SimulatedEvaluator(longer, session_for(longer).engine, keep_records=False)
    defaults = next(trial.candidate for trial in trials if trial.purpose == "baseline")
    others = [candidate for candidate in wiring.space.candidates if candidate != defaults]
    found = []
    for number, candidate in enumerate((defaults, *others), start=1):
        measurement = evaluator.evaluate(candidate, ListedLoads(longer.workload()), folder)
        purpose = "baseline" if candidate == defaults else "search"
        found.append(judge(Trial(number, candidate, measurement, 0.0, 0.0, purpose), longer))
    return found


def _right(short: Ranking, long: Ranking) -> tuple[bool, str]:
    mine, theirs = short.winner, long.winner
    if mine is None or theirs is None:
        return mine is theirs is None, f"winner {_name(short)}, long run {_name(long)}"
    if mine.candidate == theirs.candidate:
        return True, f"same winner {mine.candidate} {mine.value:.4g}"
    rival = next((standing for standing in short.standings if standing.candidate == theirs.candidate), None)
    values = {standing.candidate.key: standing for standing in long.standings}
    loss = math.log((theirs.score or 1) / (values[mine.candidate.key].score or 1))
    better = f"long run {theirs.candidate} (better by {loss:.2%})"
    if rival is None or rival.verdict is None:
        how = "never launched" if rival is None else rival.reason
        return loss <= math.log(1 + WORTHWHILE_GAIN), f"winner {mine.candidate}, {better}, {how}"
    how = f"winner {mine.candidate}, {better}, tied {rival.is_tied}, {rival.verdict}, {rival.reason}"
    return rival.is_tied, how


def _name(ranking: Ranking) -> str:
    return str(ranking.winner.candidate) if ranking.winner else "none"


def _coverage(
    short: Sequence[Trial], long: Sequence[Trial], experiment: Experiment
) -> tuple[dict[str, list[bool]], list[str]]:
    truth = {(t.candidate.key, r.load_point): r for t in long for r in t.results}
    covered: dict[str, list[bool]] = {"throughput": [], "ttft": [], "tpot": [], "e2e": [], "gain": []}
    outside: list[str] = []
    for trial in short:
        for point, result in judge(trial, experiment).measurement.latest_results.items():
            true = truth.get((trial.candidate.key, point))
            if true is None or result.verdict in UNTRUSTED_VERDICTS or true.verdict is Verdict.INVALID:
                continue
            for name, ends, value in _intervals(result, true):
                inside = ends[0] * (1 - ROUNDING) <= value <= ends[1] * (1 + ROUNDING)
                covered[name].append(inside)
                if not inside:
                    outside.append(
                        f"{name} of {trial.candidate} at {point}: {value:.5g} not in {ends[0]:.5g} to {ends[1]:.5g}"
                    )
    return covered, outside


def _intervals(result: LoadPointResult, true: LoadPointResult) -> Iterator[tuple[str, tuple[float, float], float]]:
    ends = result.metrics.intervals.get("throughput")
    if ends is not None:
        yield "throughput", ends, true.metrics.throughput
    for name in ("ttft", "tpot", "e2e"):
        mine, theirs = getattr(result.metrics, name), getattr(true.metrics, name)
        if mine is not None and theirs is not None and mine.intervals["mean"][1] is not None:
            yield name, mine.intervals["mean"], theirs.mean


def _gain_coverage(
    short: Ranking,
    long: Ranking,
    trials: Sequence[Trial],
    experiment: Experiment,
    covered: dict[str, list[bool]],
    outside: list[str],
) -> None:
    claimed = confirmed_gain(short, trials, experiment)
    if claimed is None or short.winner is None or short.defaults is None:
        return
    points = {standing.candidate.key: standing for standing in long.standings}
    mine, base = points[short.winner.candidate.key], points[short.defaults.candidate.key]
    if (mine.load_points, base.load_points) != (short.winner.load_points, short.defaults.load_points):
        return
    ratio = (mine.value or 0) / (base.value or 1)
    true = ratio if experiment.optimization.objective.startswith("max") else 1 / ratio
    inside = claimed.low * (1 - ROUNDING) <= true <= claimed.high * (1 + ROUNDING)
    covered["gain"].append(inside)
    if not inside:
        outside.append(f"gain {true:.4f} not in {claimed.low:.4f} to {claimed.high:.4f}")


def main() -> None:
    """Compare all worlds and sum up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=48)
    parser.add_argument("--strategy", default="racing", help="racing, as by default, or grid_search")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--verbose", action="store_true", help="name every interval that does not hold")
    given = parser.parse_args()
    chosen = list(worlds(given.first + given.worlds, given.strategy))[given.first :]
    right = 0
    covered: dict[str, list[bool]] = {}
    seconds: list[float] = []
    with get_context("spawn").Pool(given.processes) as pool:
        for outcome in pool.imap_unordered(compare, chosen):
            right += outcome.right
            seconds += outcome.seconds
            print(("ok   " if outcome.right else "WRONG"), outcome.text, flush=True)
            for line in outcome.outside if given.verbose else ():
                print(f"          {line}")
            held = ", ".join(f"{n} {sum(i)}/{len(i)}" for n, i in outcome.covered.items() if i)
            print(f"          intervals: {held}", flush=True)
            for name, inside in outcome.covered.items():
                covered.setdefault(name, []).extend(inside)
    print(f"\nwinner right or tied in {right} of {len(chosen)}")
    for name, inside in covered.items():
        held = wilson_share(sum(inside), len(inside))
        if held is not None:
            print(f"{name}: {held.value:.1%} of {held.n} intervals hold ({held.low:.1%} to {held.high:.1%})")
    seconds.sort()
    print(f"a load point takes {seconds[len(seconds) // 2]:.0f} s in the median, {seconds[-1]:.0f} s at most")


if __name__ == "__main__":
    main()
