"""Random effects of measured series on the residuals of the fit, shrunk.

The residual of log times of a series (model, engine, GPU, dtype and version) is a Gaussian effect, a linear function of
load, lengths and parallel sizes; its posterior mean is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Deviations of the effect on each term of `effect_basis`: constant, load, lengths, tp, data and expert parallelism.
EFFECT_SD = {"tpot": (0.2, 0.1, 0.08, 0.05, 0.1, 0.1, 0.1), "ttft": (0.25, 0.13, 0.12, 0.08, 0.13, 0.15, 0.15)}
NOISE_SD = {"tpot": 0.04, "ttft": 0.1}
REWEIGHTINGS = 3

Effects = dict[str, np.ndarray]
"""Coefficients of the basis by series."""


def estimate(
    metric: str, keys: Sequence[tuple[str, ...]], basis: np.ndarray, residual: np.ndarray, weight: np.ndarray
) -> Effects:
    """Coefficients of the basis by series; outliers count for less."""
    noise, deviation = NOISE_SD[metric] / np.sqrt(weight), np.array(EFFECT_SD[metric])
    effects: Effects = {}
    for series in sorted({key[1] for key in keys}):
        rows = np.array([index for index, key in enumerate(keys) if key[1] == series])
        phi, r, sigma = basis[rows], residual[rows], noise[rows].copy()
        prior = (phi * np.square(deviation)) @ phi.T
        for _ in range(REWEIGHTINGS):
            alpha = np.linalg.solve(prior + np.diag(sigma**2), r)
            excess = np.abs(r - prior @ alpha) / (2 * NOISE_SD[metric])
            sigma = noise[rows] * np.sqrt(np.maximum(1.0, excess))
        effects[series] = np.square(deviation) * (phi.T @ alpha)
    return effects


def apply(effects: Effects, keys: Sequence[tuple[str, ...]], basis: np.ndarray) -> np.ndarray:
    """The effect on each row, none where its series was not measured."""
    return np.array([effects[key[1]] @ row if key[1] in effects else 0.0 for key, row in zip(keys, basis, strict=True)])
