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


MIN_PAIRS, MAX_PAIRS = 2, 5
"""Pairs of launches: fewer have no spread of their own, more cost more than they tell."""


def launch_config(run: ComparedRun, seed_offset: int) -> dict[str, Any]:
    """The configuration of a run of the winner alone, at the loads at which it won.

    Both launches of a pair have the same seed, so that they get the same lengths and arrivals.
    """
    winner = run.winner
    if winner is None:
        raise ConfigError(f"The run '{run.name}' has no winner to launch again.", remedy="Compare other runs.")
    config = {key: value for key, value in run.config.items() if key not in ("only_when", "constraints")}
    load = dict(config["benchmark"])
    load |= _loads(run.winner_points, load)
    load["seed"] = int(load.get("seed", 0)) + seed_offset
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


def measure_pair(baseline: ComparedRun, new: ComparedRun, folder: Path, number: int, observe: PairObserver) -> Pair:
    """Launch both winners once, in turn: the baseline first in odd pairs, last in even ones."""
    sides = {"baseline": baseline, "candidate": new}
    order = list(sides) if number % 2 else list(reversed(sides))
    measured = {
        side: _measure_launch(
            sides[side], folder / f"{number:03d}" / side, number, partial(observe, number, side, sides[side])
        )
        for side in order
    }
    return measured["baseline"], measured["candidate"]


def _measure_launch(run: ComparedRun, folder: Path, number: int, observe: Observer) -> ComparedRun:
    config = launch_config(run, seed_offset=1000 * number)
    setup = RunSetup.from_experiment(Experiment.model_validate(config))
    setup.preflight(folder)
    store = RunStore.create(folder, config, {"layers": ["the winner of " + run.name], "values": {}})
    with store.lock():
        view: RunView = Session(store, setup).tune(observe).view
    launched = ComparedRun.from_view(store.path.name, view, config)
    # a launch that misses its targets is no winner, and still is the launch that was asked for
    key = next(iter(launched.candidates), None)
    points = run.winner_points if launched.winner is None else launched.winner_points
    return replace(launched, winner_key=key, winner_points=points)


def compare_with_fresh_pairs(
    comparison: Comparison, folder: Path, max_pairs: int, observe: PairObserver = ignore_launches
) -> tuple[Comparison, GateDecision]:
    """Add pairs until the gate is decided, or `max_pairs` were launched; their runs are written below `folder`."""
    decisions: list[GateDecision] = []
    for number in range(1, max_pairs + 1):
        pair = measure_pair(comparison.baseline, comparison.new, folder, number, observe)
        comparison = replace(comparison, pairs=(*comparison.pairs, pair))
        if number < MIN_PAIRS:
            continue
        decisions.append(decide(comparison))
        if not needs_another_pair(decisions):
            break
    return comparison, decisions[-1]
