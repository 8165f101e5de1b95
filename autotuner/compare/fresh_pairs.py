"""Fresh launches of two winners that take turns, for a gate that must not take drift of the machine for a change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from autotuner.compare.compared_run import ComparedRun
from autotuner.compare.comparison import Comparison, Pair
from autotuner.compare.gate import GateDecision, decide, needs_another_pair
from autotuner.compare.gated_figures import equal_load_points
from autotuner.compare.pair_limits import MAX_PAIRS, MIN_PAIRS
from autotuner.core import LoadPoint, Observer, Progress
from autotuner.errors import ConfigError
from autotuner.experiment import Experiment
from autotuner.report.run_view import RunView
from autotuner.run_setup import RunSetup
from autotuner.runs.store import RunStore
from autotuner.session import Session

PairObserver = Callable[[int, str, ComparedRun, Progress], None]
"""Called with the pair's number, the side ("baseline" or "candidate"), its run, and each step of its launch."""


def ignore_launches(number: int, side: str, run: ComparedRun, progress: Progress) -> None:
    """An observer for callers without interest."""


SEED_STEP = 1000
"""The distance between the seeds of two pairs."""


def launch_config(run: ComparedRun, seed: int, points: Sequence[LoadPoint]) -> dict[str, Any]:
    """The configuration of a run of the winner alone at these load points, with this seed of lengths and arrivals."""
    winner = run.winner
    if winner is None:
        raise ConfigError(f"The run '{run.name}' has no winner to launch again.", remedy="Compare other runs.")
    config = {key: value for key, value in run.config.items() if key not in ("only_when", "constraints")}
    load = dict(config["benchmark"])
    load |= _loads(points, load)
    load["seed"] = seed
    optimization = dict(config.get("optimization", {}))
    optimization |= {
        "strategy": "grid_search",
        "baseline": False,
        "confirm": 0,
        "max_iterations": 1,
        "parallel_trials": 1,
        "further_objectives": [],
    }
    return {
        **config,
        "parameters": {name: [value] for name, value in winner.parameters.items()},
        "benchmark": load,
        "optimization": optimization,
    }


def _loads(points: Sequence[LoadPoint], load: Mapping[str, Any]) -> dict[str, Any]:
    """The loads of these points; those of a capacity search, and a trace's own rate, stay as they are."""
    if load.get("find_capacity") or load.get("recorded"):
        return {}
    concurrencies = sorted({point.concurrency for point in points if point.concurrency is not None})
    rates = sorted({point.rate for point in points if point.rate is not None})
    return {"num_concurrency": concurrencies, "request_rates": rates}


def pair_points(comparison: Comparison) -> dict[str, tuple[LoadPoint, ...]]:
    """Side -> the load points that its launches measure.

    With an objective at equal load these are the points that both winners have in common. Otherwise they are those
    at which the side's winner won, and the candidate measures those of the baseline too, for the attainment there.
    """
    baseline, new = comparison.baseline.winner_points, comparison.new.winner_points
    common = equal_load_points(comparison)
    if common:
        return {"baseline": common, "candidate": common}
    return {"baseline": baseline, "candidate": tuple(dict.fromkeys((*baseline, *new)))}


def measure_pair(comparison: Comparison, folder: Path, number: int, observe: PairObserver) -> Pair:
    """Launch both winners once, in turn: the baseline first in odd pairs, last in even ones.

    Both have the same seed, so that they get the same lengths and arrivals, and each pair has one of its own.
    """
    sides = {"baseline": comparison.baseline, "candidate": comparison.new}
    points = pair_points(comparison)
    seed = comparison.baseline.experiment.benchmark.seed + SEED_STEP * number
    order = list(sides) if number % 2 else list(reversed(sides))
    measured = {
        side: _measure_launch(
            sides[side],
            launch_config(sides[side], seed, points[side]),
            folder / f"{number:03d}" / side,
            partial(observe, number, side, sides[side]),
        )
        for side in order
    }
    return measured["baseline"], measured["candidate"]


def _measure_launch(run: ComparedRun, config: Mapping[str, Any], folder: Path, observe: Observer) -> ComparedRun:
    setup = RunSetup.from_experiment(Experiment.model_validate(config))
    setup.preflight(folder)
    store = RunStore.create(folder, config, {"layers": ["the winner of " + run.name], "values": {}})
    with store.lock():
        view: RunView = Session(store, setup).tune(observe).view
    launched = ComparedRun.from_view(store.path.name, view, config)
    # a launch that misses its targets is no winner, and still is the launch that was asked for
    key = next(iter(launched.candidates), None)
    # a capacity search ends at another load in each launch; else the load is that at which the winner won
    is_search = run.experiment.benchmark.find_capacity and launched.winner is not None
    return replace(launched, winner_key=key, winner_points=launched.winner_points if is_search else run.winner_points)


def compare_with_fresh_pairs(
    comparison: Comparison, folder: Path, max_pairs: int = MAX_PAIRS, observe: PairObserver = ignore_launches
) -> tuple[Comparison, GateDecision]:
    """Add pairs until the gate is decided, or `max_pairs` were launched; their runs are written below `folder`."""
    decisions: list[GateDecision] = []
    for number in range(1, max_pairs + 1):
        pair = measure_pair(comparison, folder, number, observe)
        comparison = replace(comparison, pairs=(*comparison.pairs, pair))
        if number < MIN_PAIRS:
            continue
        decisions.append(decide(comparison))
        if not needs_another_pair(decisions):
            break
    return comparison, decisions[-1]
