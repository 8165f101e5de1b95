"""How far off a model held out would be even if more were known, on the same rows as errors.py.

python benchmarks/predict/floor.py MEASURED.csv
"""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
from errors import TARGETS, held_out, labels, line, load


def spread(rows, a) -> str:
    """By how much one configuration differs between two versions of its engine."""
    alike: dict[tuple, dict[tuple, int]] = {}
    for index, row in enumerate(rows):
        alike.setdefault(row.configuration, {}).setdefault((row.ttft, row.tpot), index)
    pairs = [
        pair
        for seen in alike.values()
        for pair in combinations(seen.values(), 2)
        if rows[pair[0]].deployment.version != rows[pair[1]].deployment.version
    ]
    cells = []
    for target in TARGETS:
        logs = np.log(getattr(a, target))
        off = 100 * (np.exp([abs(logs[one] - logs[other]) for one, other in pairs]) - 1)
        cells.append(f"{target.upper()} {np.median(off):5.1f} {off.mean():6.1f}")
    return f"{'between two versions of an engine':34} n={len(pairs):4}  {'   '.join(cells)}"


def centred(a, found, groups):
    """Predictions with the median log residual of each group taken off."""
    names, moved = np.array(groups), {}
    for target in TARGETS:
        off = np.log(getattr(a, target)) - np.log(found[target])
        bias = {name: np.median(off[names == name]) for name in set(groups)}
        moved[target] = found[target] * np.exp([bias[name] for name in groups])
    return moved


def untold(row) -> bool:
    """Whether something is known to have differed that no column tells; docs/explanation/prediction.md names it."""
    of = row.deployment
    compiled = of.engine == "sglang" and of.version is None
    unpolled = of.shape.name == "glm-5" and of.gpu.name.startswith("b")
    limited = of.engine == "vllm" and row.concurrency == 512
    return row.speculative or row.late or compiled or unpolled or limited or of.gpu.name == "gb200"


def main() -> None:
    rows, a, keys, versions = load(Path(sys.argv[1]))
    found, _ = held_out(a, keys, versions, labels(rows, "model"))
    print("median and mean error in percent, models held out")
    print(line("as predicted", a, found))
    hidden = np.array([untold(row) for row in rows])
    print(line("  of rows with something untold", a, found, hidden))
    print(line("  of the others", a, found, ~hidden))
    print(line("with the bias of each series known", a, centred(a, found, [key[1] for key in keys])))
    print(spread(rows, a))


if __name__ == "__main__":
    main()
