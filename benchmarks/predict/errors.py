"""Errors of the predictor on rows its constants have not seen, by kind of fold.

    python benchmarks/predict/errors.py MEASURED.csv

The table has the columns of `autotune predict --table` and the measured ttft_ms and tpot_ms.
"""

from __future__ import annotations

import sys
from pathlib import Path

import effects
import numpy as np
from physics import DTYPES, ENGINES, GENERATIONS, fit, part
from rows import arrays, read

FOLDS = 5
TARGETS = ("ttft", "tpot")
LEVELS = {"model": (0.08, 0.92), "": (0.1, 0.9)}
"""Quantiles whose interval covers 80% of a fold; of other families it takes more, since families differ."""


def load(path: Path):
    """Rows, their arrays, their keys and the engine versions among them."""
    rows = read(path)
    versions = sorted({f"{row.deployment.engine} {row.deployment.version or '-'}" for row in rows})
    return rows, arrays(rows, ENGINES, GENERATIONS, versions, DTYPES), [row.keys for row in rows], versions


def labels(rows, kind: str):
    """Which fold each row belongs to; alike configurations are never apart.

    A "model" is all models of the same sizes, a "name" one of them, whose twin stays.
    """
    rng = np.random.default_rng(0)
    named = {
        "model": [row.keys[0] for row in rows],
        "name": [row.deployment.shape.name for row in rows],
        "gpu": [row.deployment.gpu.name for row in rows],
        "engine": [row.deployment.engine for row in rows],
        "configuration": [row.configuration for row in rows],
        "layout": [row.keys for row in rows],
    }[kind]
    if kind in ("configuration", "layout"):
        number = {name: int(rng.integers(FOLDS)) for name in dict.fromkeys(named)}
        named = [number[name] for name in named]
    return named


def held_out(a, keys, versions, folds):
    """Predictions of each row by constants fitted on the other folds, and how much was known."""
    families = np.array([key[0] for key in keys])
    found, depth = {target: np.zeros(len(keys)) for target in TARGETS}, np.zeros(len(keys), int)
    for fold in dict.fromkeys(folds):
        test = np.array([label == fold for label in folds])
        train, left = np.flatnonzero(~test), np.flatnonzero(test)
        known, new = part(a, train), part(a, left)
        model = fit(known, versions, families[train])
        for target, seen, unseen in zip(TARGETS, model.predict(known), model.predict(new), strict=True):
            residual = np.log(getattr(known, target)) - np.log(seen)
            learnt = effects.learn(target, [keys[i] for i in train], known.basis, residual, known.weight)
            effect, levels = effects.apply(learnt, [keys[i] for i in left], new.basis)
            found[target][left], depth[left] = unseen * np.exp(effect), levels
    return found, depth


def spearman(a, b) -> float:
    """Rank correlation."""
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def order(rows, a, found) -> float:
    """Median rank correlation of throughput per GPU within groups of the same model, GPU and lengths."""
    groups: dict[tuple, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault((row.keys[0], row.deployment.gpu.name, row.isl, row.osl), []).append(index)
    scores = []
    for members in groups.values():
        if len(members) < 5:
            continue
        osl = np.array([rows[i].osl for i in members])
        load = np.array([rows[i].load / rows[i].deployment.layout.gpus for i in members])
        real = load / (a.ttft[members] + (osl - 1) * a.tpot[members])
        said = load / (found["ttft"][members] + (osl - 1) * found["tpot"][members])
        scores.append(spearman(real, said))
    return float(np.median(scores))


def line(name: str, a, found, pick=slice(None)) -> str:
    """One line of the error table."""
    cells = []
    for target in TARGETS:
        error = 100 * np.abs(found[target][pick] / getattr(a, target)[pick] - 1)
        cells.append(f"{target.upper()} {np.median(error):5.1f} {error.mean():6.1f}")
    return f"{name:34} n={len(a.ttft[pick]):4}  {'   '.join(cells)}"


def coverage(a, found, folds, levels) -> str:
    """Share of each fold inside these quantiles of the other folds' residuals."""
    labels, cells = np.array([str(fold) for fold in folds]), []
    for target in TARGETS:
        off = np.log(getattr(a, target)) - np.log(found[target])
        inside = 0
        for fold in set(labels):
            low, high = np.quantile(off[labels != fold], levels)
            inside += int(((off >= low) & (off <= high) & (labels == fold)).sum())
        cells.append(f"{target.upper()} {100 * inside / len(off):.0f}%")
    return "   ".join(cells)


def main() -> None:
    rows, a, keys, versions = load(Path(sys.argv[1]))
    print("held out by".ljust(34), "         median and mean error in percent")
    for kind in ("model", "name", "configuration", "layout", "gpu", "engine"):
        folds = labels(rows, kind)
        found, _ = held_out(a, keys, versions, folds)
        covered = coverage(a, found, folds, LEVELS.get(kind, LEVELS[""]))
        print(line(kind, a, found), f"  rank {order(rows, a, found):.3f}   80% interval {covered}")
        if kind in ("model", "name", "gpu", "engine"):
            for fold in sorted(set(folds)):
                print(line(f"  {fold}", a, found, np.array([label == fold for label in folds])))
            plain = ~a.speculative
            print(line("  without series run with a draft", a, found, plain), flush=True)


if __name__ == "__main__":
    main()
