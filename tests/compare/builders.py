"""Compared runs with known launches."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from autotuner.compare.compared_run import ComparedCandidate, ComparedRun, LaunchFigures
from autotuner.core import LoadPoint

POINT = LoadPoint("D(100,100)", concurrency=4)


def config(**sections: Any) -> dict[str, Any]:
    """A small composed configuration; `sections` replace whole sections of it."""
    return {
        "task_name": "t",
        "model": {"id_or_path": "m"},
        "base_runtime": "sim",
        "parameters": {"tp-size": [1, 2]},
        "optimization": {"objective": "maximize_throughput"},
        "benchmark": {"traffic_scenarios": [POINT.scenario], "num_concurrency": [4]},
    } | sections


def candidate(
    throughputs: Sequence[float],
    key: str = "a",
    figures: Sequence[Mapping[str, float]] = (),
    attainment: float = 1.0,
    confirmed: bool = True,
    **fields: Any,
) -> ComparedCandidate:
    """A candidate with one launch for each throughput; all are confirmations, or all of the search."""
    launches = tuple(
        LaunchFigures(
            number,
            confirmed,
            {POINT: dict(figures[number - 1]) if figures else {"output_throughput": value / 2}},
            {POINT: value},
            {POINT: attainment},
        )
        for number, value in enumerate(throughputs, start=1)
    )
    defaults: dict[str, Any] = {
        "label": f"candidate {key}",
        "runtime": "sim",
        "parameters": {"tp-size": 1},
        "gpus": 1,
        "launches": launches,
        "verdicts": {POINT: "feasible"},
    }
    return ComparedCandidate(key, **(defaults | fields))


def run(
    *candidates: ComparedCandidate, name: str = "run", winner: str | None = "a", source: str = "measured", **fields: Any
) -> ComparedRun:
    """A run of these candidates."""
    by_key = {each.key: each for each in candidates}
    launches = by_key[winner].launches if winner is not None else ()
    logs = [math.log(launch.utilities[POINT]) for launch in launches if POINT in launch.utilities]
    defaults: dict[str, Any] = {
        "config": config(),
        "sources": (source,),
        "environment": {"driver": "570"},
        "winner_points": (POINT,) if winner else (),
        "winner_value": math.exp(sum(logs) / len(logs)) if logs else None,
    }
    return ComparedRun(name=name, candidates=by_key, winner_key=winner, **(defaults | fields))
