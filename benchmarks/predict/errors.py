"""Errors of the predictor on held-out rows, by kind of fold.

    python benchmarks/predict/errors.py MEASURED.csv [KIND,...]

The table has the columns of `autotune predict table` and the measured ttft_ms and tpot_ms.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from pathlib import Path

import effects
import numpy as np
from physics import DTYPES, ENGINES, GENERATIONS, fit, prior_schedules
from rows import Arrays, Row, arrays, part, read
from schedules import Schedules

from autotuner.predict.log_ratios import MeasuredRatio, posterior, regressors

FOLDS = 5
TARGETS = ("ttft", "tpot")
KINDS = ("model", "name", "configuration", "layout", "gpu", "engine", "harness")
INTERVAL_QUANTILES = {"model": (0.08, 0.92), "": (0.1, 0.9)}
"""Quantiles whose interval covers 80% of a fold; of other families it takes more, since families differ."""


def load(path: Path) -> tuple[list[Row], Arrays, list[tuple[str, ...]], list[str]]:
    """Rows, their arrays, their keys and the engine versions among them."""
    rows = read(path)
    versions = sorted({f"{row.deployment.engine} {row.deployment.version or '-'}" for row in rows})
    return rows, arrays(rows, ENGINES, GENERATIONS, versions, DTYPES), [row.keys for row in rows], versions


def labels(rows: Sequence[Row], kind: str) -> list[Hashable]:
    """The fold of each row; equal configurations share one.

    A "model" is all models of the same sizes, a "name" one of them, whose twin stays.
    """
    rng = np.random.default_rng(0)
    fold_names: dict[str, list[Hashable]] = {
        "harness": [row.harness.name for row in rows],
        "model": [row.keys[0] for row in rows],
        "name": [row.deployment.shape.name for row in rows],
        "gpu": [row.deployment.gpu.name for row in rows],
        "engine": [row.deployment.engine for row in rows],
        "configuration": [row.configuration for row in rows],
        "layout": [(*row.keys, row.deployment.layout) for row in rows],
    }
    names = fold_names[kind]
    if kind in ("configuration", "layout"):
        number = {name: int(rng.integers(FOLDS)) for name in dict.fromkeys(names)}
        return [number[name] for name in names]
    return names


def held_out(
    a: Arrays,
    keys: Sequence[tuple[str, ...]],
    versions: list[str],
    folds: Sequence[Hashable],
    schedules: Schedules,
) -> dict[str, np.ndarray]:
    """Predictions of each row by constants fitted on the other folds."""
    families = np.array([key[0] for key in keys])
    predictions = {target: np.zeros(len(keys)) for target in TARGETS}
    for fold in dict.fromkeys(folds):
        test = np.array([label == fold for label in folds])
        train, held_rows = np.flatnonzero(~test), np.flatnonzero(test)
        train_arrays, test_arrays = part(a, train), part(a, held_rows)
        model = fit(train_arrays, versions, families[train], schedules.part(train))
        for target, fitted, predicted in zip(
            TARGETS, model.approximate(train_arrays, schedules.part(train)), model.predict(test_arrays), strict=True
        ):
            residual = np.log(getattr(train_arrays, target)) - np.log(fitted)
            series_effects = effects.estimate(
                target, [keys[i] for i in train.tolist()], train_arrays.basis, residual, train_arrays.weight
            )
            effect = effects.apply(series_effects, [keys[i] for i in held_rows.tolist()], test_arrays.basis)
            predictions[target][held_rows] = predicted * np.exp(effect)
    return predictions


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation."""
    one, other = (np.argsort(np.argsort(values)).astype(float) for values in (a, b))
    return float(np.corrcoef(one, other)[0, 1])


def rank_correlation(rows: Sequence[Row], a: Arrays, predictions: dict[str, np.ndarray]) -> float:
    """Median rank correlation of throughput per GPU within groups of the same model, GPU and lengths."""
    groups: dict[tuple[Hashable, ...], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault((row.keys[0], row.deployment.gpu.name, row.isl, row.osl), []).append(index)
    scores = []
    for members in groups.values():
        if len(members) < 5:
            continue
        osl = np.array([rows[i].osl for i in members])
        load = np.array([rows[i].load / rows[i].deployment.layout.gpus for i in members])
        real = load / (a.ttft[members] + (osl - 1) * a.tpot[members])
        predicted = load / (predictions["ttft"][members] + (osl - 1) * predictions["tpot"][members])
        scores.append(spearman(real, predicted))
    return float(np.median(scores))


def line(name: str, a: Arrays, predictions: dict[str, np.ndarray], pick: np.ndarray | slice = slice(None)) -> str:
    """One line of the error table."""
    cells = []
    for target in TARGETS:
        error = 100 * np.abs(predictions[target][pick] / getattr(a, target)[pick] - 1)
        cells.append(f"{target.upper()} {np.median(error):5.1f} {error.mean():6.1f}")
    return f"{name:34} n={len(a.ttft[pick]):4}  {'   '.join(cells)}"


def coverage(
    a: Arrays, predictions: dict[str, np.ndarray], folds: Sequence[Hashable], levels: tuple[float, float]
) -> str:
    """Share of each fold inside these quantiles of the other folds' residuals."""
    labels, cells = np.array([str(fold) for fold in folds]), []
    for target in TARGETS:
        residual = np.log(getattr(a, target)) - np.log(predictions[target])
        inside = 0
        for fold in set(labels):
            low, high = np.quantile(residual[labels != fold], levels)
            inside += int(((residual >= low) & (residual <= high) & (labels == fold)).sum())
        cells.append(f"{target.upper()} {100 * inside / len(residual):.0f}%")
    return "   ".join(cells)


def series_of(row: Row) -> tuple[Hashable, ...]:
    """What a user's measurements of one model have in common: model, engine, version, GPU type and dtypes."""
    deployment = row.deployment
    return (row.keys[0], deployment.engine, deployment.version, deployment.gpu.name, deployment.dtypes)


def calibrated(
    rows: Sequence[Row], a: Arrays, predictions: dict[str, np.ndarray], points: int
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Predictions of a series after so many of its load points, drawn from one layout, and which those rows are.

    The masks: other points of that layout, and other layouts.
    """
    rng, result = np.random.default_rng(1), {target: predictions[target].copy() for target in TARGETS}
    same_layout, other_layout = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    groups: dict[tuple[Hashable, ...], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(series_of(row), []).append(index)
    position = [
        regressors(row.load, row.isl, row.osl, row.deployment.layout.tp * row.deployment.layout.dp) for row in rows
    ]
    for members in groups.values():
        layouts: dict[Hashable, list[int]] = {}
        for index in members:
            layouts.setdefault(rows[index].deployment.layout, []).append(index)
        candidates = [layout for layout, of_layout in layouts.items() if len(of_layout) > points]
        if not candidates:
            continue
        layout = candidates[int(rng.integers(len(candidates)))]
        drawn = rng.choice(layouts[layout], points, replace=False).tolist()
        ratios = [
            MeasuredRatio(
                "launch",
                position[index],
                *(float(np.log(getattr(a, target)[index] / predictions[target][index])) for target in TARGETS),
            )
            for index in drawn
        ]
        for target in TARGETS:
            after = posterior(ratios, target)
            for index in members:
                result[target][index] *= np.exp(after.at(position[index])[0])
        for index in members:
            if index not in drawn:
                (same_layout if rows[index].deployment.layout == layout else other_layout)[index] = True
    return result, same_layout, other_layout


def main() -> None:
    kinds = sys.argv[2].split(",") if len(sys.argv) > 2 else list(KINDS)
    rows, a, keys, versions = load(Path(sys.argv[1]))
    schedules = prior_schedules(a, versions)
    print("held out by".ljust(34), "         median and mean error in percent")
    for kind in kinds:
        folds = labels(rows, kind)
        predictions = held_out(a, keys, versions, folds, schedules)
        covered = coverage(a, predictions, folds, INTERVAL_QUANTILES.get(kind, INTERVAL_QUANTILES[""]))
        print(
            line(kind, a, predictions), f"  rank {rank_correlation(rows, a, predictions):.3f}   80% interval {covered}"
        )
        if kind in ("configuration", "layout"):
            continue
        for fold in sorted(set(folds), key=str):
            print(line(f"  {fold}", a, predictions, np.array([label == fold for label in folds])))
        if kind == "model":
            for name in sorted({row.harness.name for row in rows}):
                print(line(f"  harness {name}", a, predictions, np.array([row.harness.name == name for row in rows])))
            print(line("  without series run with a draft", a, predictions, ~a.speculative))
            for points in (1, 3, 5):
                after, same, other = calibrated(rows, a, predictions, points)
                for name, mask in (("same layout", same), ("other layouts", other)):
                    print(line(f"  before {points} points, {name}", a, predictions, mask))
                    print(line(f"  after {points} points, {name}", a, after, mask), flush=True)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
