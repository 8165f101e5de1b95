"""Random effects of measured series and their layouts on the residuals of the fit, shrunk.

The residuals of log times are taken as a sum of Gaussian effects per group, each a linear
function of load and lengths; their posterior means are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Deviations of the effect of each level (the series: model, engine, GPU, dtype and version; its
# layout) on each term of `effect_basis`: constant, load, prompt length, output length. Chosen on
# folds of configurations other than those whose errors are reported; levels above the series
# (the model, the model on an engine) were no better than none there.
EFFECT_SD = {
    "tpot": ((0.15, 0.07, 0.06, 0.04), (0.10, 0.07, 0.06, 0.04)),
    "ttft": ((0.15, 0.08, 0.08, 0.05), (0.105, 0.105, 0.105, 0.07)),
}
NOISE_SD = {"tpot": 0.035, "ttft": 0.09}
REWEIGHTINGS = 3

Effects = dict[tuple[str, str], np.ndarray]
"""Coefficients of the basis by series and key of one level."""


def estimate(
    metric: str, keys: Sequence[tuple[str, ...]], basis: np.ndarray, residual: np.ndarray, weight: np.ndarray
) -> list[Effects]:
    """Effects by level and group: coefficients of the basis; outliers count for less."""
    noise = NOISE_SD[metric] / np.sqrt(weight)
    effects: list[Effects] = [{} for _ in EFFECT_SD[metric]]
    for series in sorted({key[1] for key in keys}):
        rows = np.array([index for index, key in enumerate(keys) if key[1] == series])
        phi, r, sigma = basis[rows], residual[rows], noise[rows].copy()
        groups = [np.array([keys[index][1 + level] for index in rows]) for level in range(len(effects))]
        prior = sum(
            (group[:, None] == group[None, :]) * ((phi * np.square(deviation)) @ phi.T)
            for group, deviation in zip(groups, EFFECT_SD[metric], strict=True)
        )
        for _ in range(REWEIGHTINGS):
            alpha = np.linalg.solve(prior + np.diag(sigma**2), r)
            excess = np.abs(r - prior @ alpha) / (2 * NOISE_SD[metric])
            sigma = noise[rows] * np.sqrt(np.maximum(1.0, excess))
        for level, (group, deviation) in enumerate(zip(groups, EFFECT_SD[metric], strict=True)):
            for key in sorted(set(group)):
                inside = group == key
                effects[level][series, str(key)] = np.square(deviation) * (phi[inside].T @ alpha[inside])
    return effects


def apply(
    effects: Sequence[Effects], keys: Sequence[tuple[str, ...]], basis: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The effect on each row: summed over the levels that were measured."""
    total, depth = np.zeros(len(keys)), np.zeros(len(keys), int)
    for index, (_, series, *rest) in enumerate(keys):
        for level, key in zip(effects, (series, *rest), strict=True):
            if (series, key) not in level:
                break
            depth[index] += 1
            total[index] += level[series, key] @ basis[index]
    return total, depth
