"""Whether runs at default settings select the winner of runs thirty times as long, and whether their intervals hold.

    python benchmarks/scoring/long_runs.py --worlds 48 --processes 2

In each world a handful of candidates and the engine's defaults are tuned in virtual time, as `autotune
run` does it with windows of 20 s, and then measured once for 600 s at every load point with other
seeds. A winner is right when the long run has the same one, or one that is declared tied with it, or
one that the search skipped because it could not be better by more than the gain at which it stops.
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

from autotuner.core import LoadPointResult, Purpose, Trial, Verdict
from autotuner.evaluate.simulated import SimulatedEvaluator
from autotuner.execute.serial import SerialExecutor
from autotuner.experiment import Experiment
from autotuner.run_setup import RunSetup
from autotuner.scoring.confirm import confirmed_gain
from autotuner.scoring.intervals import wilson_share
from autotuner.scoring.judge import judge
from autotuner.scoring.pool import UNTRUSTED_VERDICTS
from autotuner.scoring.rank import Ranking, rank
from autotuner.search.capacity import WORTHWHILE_GAIN
from autotuner.search.launch import ListedLoads
from autotuner.tune import tune

LONG_SECONDS, LONG_WARMUP_SECONDS, SEED_OFFSET = 600.0, 30.0, 77_000
ROUNDING_TOLERANCE = 0.001
"""Relative tolerance at the ends of an interval: a deterministic world has intervals of no width."""

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
        config = {
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
        yield number, Experiment.model_validate(config)


@dataclass
class WorldResult:
    """The comparison of one world."""

    number: int
    text: str
    right: bool
    covered: dict[str, list[bool]]
    outside: list[str]
    seconds: list[float]


def compare(world: tuple[int, Experiment]) -> WorldResult:
    """Tune a world at default settings and compare the ranking with long runs."""
    number, experiment = world
    session = RunSetup.from_experiment(experiment)
    with tempfile.TemporaryDirectory() as folder:
        record = InMemoryRecord(Path(folder))
        tune(experiment, session.create_searcher(), _executor(session, experiment), record)
        long_trials = _long_runs(experiment, session, record.summaries(), Path(folder))
    short, long = rank(record.summaries(), experiment), rank(long_trials, experiment)
    covered, outside = _coverage(record.summaries(), long_trials, experiment)
    _gain_coverage(short, long, record.summaries(), experiment, covered, outside)
    is_right, description = _is_right(short, long)
    load = experiment.benchmark
    text = (
        f"{number:3d} {experiment.optimization.objective} {load.traffic_scenarios[0]} {list(load.num_concurrency)} "
        f"{experiment.model.id_or_path}: {description}"
    )
    seconds = [trial.measurement.timings.get("load", 0.0) / max(1, len(trial.results)) for trial in record.summaries()]
    return WorldResult(number, text, is_right, covered, outside, seconds)


def _executor(session: Any, experiment: Experiment) -> SerialExecutor:
    return SerialExecutor(SimulatedEvaluator(experiment, session.engine, keep_records=False))


def _long_runs(experiment: Experiment, session: Any, trials: Sequence[Trial], folder: Path) -> list[Trial]:
    """A long run of every candidate, whether or not the search launched it."""
    long_benchmark = experiment.benchmark.model_copy(
        update={
            "duration": LONG_SECONDS,
            "max_duration": LONG_SECONDS,
            "warmup": LONG_WARMUP_SECONDS,
            "seed": experiment.benchmark.seed + SEED_OFFSET,
        }
    )
    long_experiment = experiment.model_copy(update={"benchmark": long_benchmark})
    evaluator = SimulatedEvaluator(
        long_experiment, RunSetup.from_experiment(long_experiment).engine, keep_records=False
    )
    defaults = next(trial.candidate for trial in trials if trial.purpose == "baseline")
    others = [candidate for candidate in session.space.candidates if candidate != defaults]
    judged = []
    for number, candidate in enumerate((defaults, *others), start=1):
        measurement = evaluator.evaluate(candidate, ListedLoads(long_experiment.workload()), folder)
        purpose: Purpose = "baseline" if candidate == defaults else "search"
        judged.append(judge(Trial(number, candidate, measurement, 0.0, 0.0, purpose), long_experiment))
    return judged


def _is_right(short: Ranking, long: Ranking) -> tuple[bool, str]:
    short_winner, long_winner = short.winner, long.winner
    if short_winner is None or long_winner is None:
        return short_winner is long_winner is None, f"winner {_name(short)}, long run {_name(long)}"
    if short_winner.candidate == long_winner.candidate:
        return True, f"same winner {short_winner.candidate} {short_winner.value:.4g}"
    rival = next((standing for standing in short.standings if standing.candidate == long_winner.candidate), None)
    long_standings = {standing.candidate.key: standing for standing in long.standings}
    loss = math.log((long_winner.score or 1) / (long_standings[short_winner.candidate.key].score or 1))
    better = f"long run {long_winner.candidate} (better by {loss:.2%})"
    if rival is None or rival.verdict is None:
        description = "never launched" if rival is None else rival.reason
        return loss <= math.log(1 + WORTHWHILE_GAIN), f"winner {short_winner.candidate}, {better}, {description}"
    description = f"winner {short_winner.candidate}, {better}, tied {rival.is_tied}, {rival.verdict}, {rival.reason}"
    return rival.is_tied, description


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
            long_result = truth.get((trial.candidate.key, point))
            if long_result is None or result.verdict in UNTRUSTED_VERDICTS or long_result.verdict is Verdict.INVALID:
                continue
            for name, interval, value in _intervals(result, long_result):
                holds = interval[0] * (1 - ROUNDING_TOLERANCE) <= value <= interval[1] * (1 + ROUNDING_TOLERANCE)
                covered[name].append(holds)
                if not holds:
                    outside.append(
                        f"{name} of {trial.candidate} at {point}: {value:.5g} "
                        f"not in {interval[0]:.5g} to {interval[1]:.5g}"
                    )
    return covered, outside


def _intervals(
    result: LoadPointResult, long_result: LoadPointResult
) -> Iterator[tuple[str, tuple[float, float], float]]:
    interval = result.metrics.intervals.get("throughput")
    if interval is not None:
        yield "throughput", interval, long_result.metrics.throughput
    for name in ("ttft", "tpot", "e2e"):
        short_distribution, long_distribution = getattr(result.metrics, name), getattr(long_result.metrics, name)
        if (
            short_distribution is not None
            and long_distribution is not None
            and short_distribution.intervals["mean"][1] is not None
        ):
            yield name, short_distribution.intervals["mean"], long_distribution.mean


def _gain_coverage(
    short: Ranking,
    long: Ranking,
    trials: Sequence[Trial],
    experiment: Experiment,
    covered: dict[str, list[bool]],
    outside: list[str],
) -> None:
    gain = confirmed_gain(short, trials, experiment)
    if gain is None or short.winner is None or short.defaults is None:
        return
    points = {standing.candidate.key: standing for standing in long.standings}
    winner, defaults = points[short.winner.candidate.key], points[short.defaults.candidate.key]
    if (winner.load_points, defaults.load_points) != (short.winner.load_points, short.defaults.load_points):
        return
    ratio = (winner.value or 0) / (defaults.value or 1)
    long_gain = ratio if experiment.optimization.objective.startswith("max") else 1 / ratio
    holds = gain.low * (1 - ROUNDING_TOLERANCE) <= long_gain <= gain.high * (1 + ROUNDING_TOLERANCE)
    covered["gain"].append(holds)
    if not holds:
        outside.append(f"gain {long_gain:.4f} not in {gain.low:.4f} to {gain.high:.4f}")


def main() -> None:
    """Compare all worlds and sum up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=48)
    parser.add_argument("--strategy", default="racing", help="racing, as by default, or grid_search")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--verbose", action="store_true", help="name every interval that does not hold")
    arguments = parser.parse_args()
    selected = list(worlds(arguments.first + arguments.worlds, arguments.strategy))[arguments.first :]
    right = 0
    covered: dict[str, list[bool]] = {}
    seconds: list[float] = []
    with get_context("spawn").Pool(arguments.processes) as pool:
        for outcome in pool.imap_unordered(compare, selected):
            right += outcome.right
            seconds += outcome.seconds
            print(("ok   " if outcome.right else "WRONG"), outcome.text, flush=True)
            for line in outcome.outside if arguments.verbose else ():
                print(f"          {line}")
            held_counts = ", ".join(f"{n} {sum(i)}/{len(i)}" for n, i in outcome.covered.items() if i)
            print(f"          intervals: {held_counts}", flush=True)
            for name, holds in outcome.covered.items():
                covered.setdefault(name, []).extend(holds)
    print(f"\nwinner right or tied in {right} of {len(selected)}")
    for name, holds in covered.items():
        held = wilson_share(sum(holds), len(holds))
        if held is not None:
            print(f"{name}: {held.value:.1%} of {held.n} intervals hold ({held.low:.1%} to {held.high:.1%})")
    seconds.sort()
    print(f"a load point takes {seconds[len(seconds) // 2]:.0f} s in the median, {seconds[-1]:.0f} s at most")


if __name__ == "__main__":
    main()
