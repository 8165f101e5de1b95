"""What is believed of candidates of which nothing is predicted: each value of each parameter has an effect.

Effects add up on a log scale and are Gaussian, what is left over is each candidate's own. How much a
parameter counts for is learnt from what was seen: its variance is the posterior mean of its effects'
squares, shrunk towards what is assumed at first (automatic relevance determination; MacKay, 1992).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotuner.core import Candidate

COMMON_SD = 0.2
"""The deviation of what all candidates have in common, beside the middle of what was seen."""

VALUE_SD, OWN_SD = 0.15, 0.04
"""Deviations that the effects of a parameter's values, and what is a candidate's own, are taken to have at first."""

VALUE_WEIGHT, OWN_WEIGHT = 1.0, 4.0
"""For how many effects those count."""

OCTAVES = 2.0
"""Factors of two over which the effects of two numbers become unlike."""

FAR = 3.0
"""Deviations at which an error counts as no larger: beyond them lies an edge, not a cost."""

ROUNDS = 30
"""Of the estimate of the variances; further ones change them by less than a per cent."""


@dataclass(frozen=True)
class Part:
    """A part of the covariance: the correlation of all candidates, its variance, and how firmly that is assumed."""

    alike: np.ndarray
    variance: float
    weight: float
    effects: int


def guess(
    seen: Sequence[Candidate], errors: np.ndarray, noise: np.ndarray, wanted: Sequence[Candidate]
) -> tuple[np.ndarray, np.ndarray]:
    """(means, covariance) of the logs of candidates: `errors` of those `seen`, `noise` the deviations in them."""
    everything, known = [*seen, *wanted], slice(0, len(seen))
    parts = _parts(everything, len(seen))
    among = np.diag(noise**2)
    start = sum((part.variance * part.alike for part in parts), np.zeros((len(everything),) * 2))
    most = FAR * np.sqrt(np.diag(start)[known] + noise**2)
    errors = np.clip(errors, -most, most)
    variances = _learnt(parts, known, errors, among)
    total = sum((v * part.alike for v, part in zip(variances, parts, strict=True)), np.zeros_like(start))
    new = slice(len(seen), None)
    gain = total[new, known] @ np.linalg.inv(total[known, known] + among)
    return gain @ errors, total[new, new] - gain @ total[known, new]


def _parts(candidates: Sequence[Candidate], seen: int) -> list[Part]:
    names = sorted({name for candidate in candidates for name in candidate.parameters})
    size = len(candidates)
    keys = [candidate.key for candidate in candidates]
    parts = [Part(np.ones((size, size)), COMMON_SD**2, math.inf, 1)]
    for name in names:
        values = values_of(candidates, name)
        if len(set(map(repr, values))) > 1:
            count = len(set(map(repr, values[:seen])))
            parts.append(Part(_similar(values), VALUE_SD**2, VALUE_WEIGHT, count))
    parts.append(Part(equal(keys, keys), OWN_SD**2, OWN_WEIGHT, len(set(keys[:seen]))))
    return parts


def _learnt(parts: Sequence[Part], known: slice, errors: np.ndarray, among: np.ndarray) -> list[float]:
    """The variances of the parts, by expectation and maximization."""
    variances = [part.variance for part in parts]
    alike = [part.alike[known, known] for part in parts]
    for _ in range(ROUNDS):
        inverse = np.linalg.inv(sum((v * one for v, one in zip(variances, alike, strict=True)), among))
        pulled = inverse @ errors
        for at, part in enumerate(parts):
            if not math.isfinite(part.weight):
                continue
            v = variances[at]
            squares = v * part.effects + v**2 * float(pulled @ alike[at] @ pulled - np.sum(inverse * alike[at]))
            variances[at] = (part.weight * part.variance + max(squares, 0.0)) / (part.weight + part.effects)
    return variances


def _similar(values: Sequence[Any]) -> np.ndarray:
    """How alike the effects of values are: those of numbers the more the closer these are."""
    names = [repr(value) for value in values]
    found = equal(names, names)
    numbers = [value if isinstance(value, int | float) and not isinstance(value, bool) else None for value in values]
    logs = np.array([math.log2(value) if value is not None and value > 0 else np.nan for value in numbers])
    near = np.exp(-np.abs(logs[:, None] - logs[None, :]) / OCTAVES)
    return np.where(np.isnan(near), found, near)


def values_of(candidates: Sequence[Candidate], name: str) -> list[Any]:
    """The value that each candidate has of a parameter; a size that is not given is 1."""
    usual = 1 if name.endswith("-size") else None
    return [candidate.parameters.get(name, usual) for candidate in candidates]


def equal(ones: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """1 where one of `ones` is one of `others`, else 0; a row for each of the first."""
    found: np.ndarray = (np.array(ones)[:, None] == np.array(others)[None, :]).astype(float)
    return found
