"""Errors of held-out models if more about them were known, on the same rows as errors.py.

python benchmarks/predict/floor.py MEASURED.csv
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from errors import TARGETS, held_out, labels, line, load
from physics import prior_schedules
from rows import Arrays, Row


def spread(rows: Sequence[Row], a: Arrays) -> str:
    """Differences of one configuration between two versions of its engine."""
    repeats: dict[tuple[Hashable, ...], dict[tuple[float, float], int]] = {}
    for index, row in enumerate(rows):
        repeats.setdefault(row.configuration, {}).setdefault((row.ttft, row.tpot), index)
    pairs = [
        pair
        for copies in repeats.values()
        for pair in combinations(copies.values(), 2)
        if rows[pair[0]].deployment.version != rows[pair[1]].deployment.version
    ]
    cells = []
    for target in TARGETS:
        logs = np.log(getattr(a, target))
        residual = 100 * (np.exp([abs(logs[one] - logs[other]) for one, other in pairs]) - 1)
        cells.append(f"{target.upper()} {np.median(residual):5.1f} {residual.mean():6.1f}")
    return f"{'between two versions of an engine':34} n={len(pairs):4}  {'   '.join(cells)}"


def centred(a: Arrays, predictions: dict[str, np.ndarray], groups: Sequence[str]) -> dict[str, np.ndarray]:
    """Predictions with the median log residual of each group taken off."""
    names, result = np.array(groups), {}
    for target in TARGETS:
        residual = np.log(getattr(a, target)) - np.log(predictions[target])
        bias = {name: np.median(residual[names == name]) for name in set(groups)}
        result[target] = predictions[target] * np.exp([bias[name] for name in groups])
    return result


def has_unrecorded_difference(row: Row) -> bool:
    """Whether it differs from others in a way that no column records; docs/explanation/prediction.md names it."""
    deployment = row.deployment
    compiled = deployment.engine == "sglang" and deployment.version is None
    unpolled = deployment.shape.name == "glm-5" and deployment.gpu.name.startswith("b")
    limited = deployment.engine == "vllm" and row.concurrency == 512
    return row.speculative or row.late_first_token or compiled or unpolled or limited or deployment.gpu.name == "gb200"


def main() -> None:
    rows, a, keys, versions = load(Path(sys.argv[1]))
    predictions = held_out(a, keys, versions, labels(rows, "model"), prior_schedules(a, versions))
    print("median and mean error in percent, models held out")
    print(line("as predicted", a, predictions))
    hidden = np.array([has_unrecorded_difference(row) for row in rows])
    print(line("  rows with an unrecorded difference", a, predictions, hidden))
    print(line("  of the others", a, predictions, ~hidden))
    print(line("with the bias of each series known", a, centred(a, predictions, [key[1] for key in keys])))
    print(spread(rows, a))


if __name__ == "__main__":
    main()
