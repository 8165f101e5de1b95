"""What a measured model differs by from the physics, shrunk: model, engine, series, layout.

The residuals of log times are taken as a sum of Gaussian effects per group, each a linear
function of load and lengths; their posterior means are kept.
"""

from __future__ import annotations

import numpy as np

# Deviations of the effect of each level (model; with engine; with GPU, dtype and version; with
# layout) on each term of `basis_of`: constant, load, prompt length, output length.
DEVIATIONS = {
    "tpot": ((0.12, 0.05, 0.04, 0.02), (0.10, 0.04, 0.04, 0.02), (0.10, 0, 0, 0), (0.10, 0.07, 0.06, 0.04)),
    "ttft": ((0.15, 0.06, 0.08, 0.05), (0.15, 0.08, 0.08, 0.05), (0.15, 0, 0, 0), (0.15, 0.15, 0.15, 0.10)),
}
NOISE = {"tpot": 0.035, "ttft": 0.09}
ROUNDS = 3


def learn(target: str, keys, basis, residual, weight):
    """Effects by level and group: coefficients of the basis; rows far off count for less."""
    noise = NOISE[target] / np.sqrt(weight)
    found = [{} for _ in DEVIATIONS[target]]
    for family in sorted({key[0] for key in keys}):
        rows = np.array([index for index, key in enumerate(keys) if key[0] == family])
        phi, r, sigma = basis[rows], residual[rows], noise[rows].copy()
        groups = [np.array([keys[index][level] for index in rows]) for level in range(len(found))]
        prior = sum(
            (group[:, None] == group[None, :]) * ((phi * np.square(deviation)) @ phi.T)
            for group, deviation in zip(groups, DEVIATIONS[target], strict=True)
        )
        for _ in range(ROUNDS):
            alpha = np.linalg.solve(prior + np.diag(sigma**2), r)
            off = np.abs(r - prior @ alpha) / (2 * NOISE[target])
            sigma = noise[rows] * np.sqrt(np.maximum(1.0, off))
        for level, (group, deviation) in enumerate(zip(groups, DEVIATIONS[target], strict=True)):
            for key in sorted(set(group)):
                inside = group == key
                found[level][str(key)] = np.square(deviation) * (phi[inside].T @ alpha[inside])
    return found


def apply(found, keys, basis):
    """The effect on each row: the sum over the levels that know it."""
    total, depth = np.zeros(len(keys)), np.zeros(len(keys), int)
    for index, row in enumerate(keys):
        for level, key in zip(found, row, strict=True):
            if key not in level:
                break
            depth[index] += 1
            total[index] += level[key] @ basis[index]
    return total, depth
