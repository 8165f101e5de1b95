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

VALUE_EFFECT_SD, CANDIDATE_SD = 0.15, 0.04
"""Deviations that the effects of a parameter's values, and what is a candidate's own, are taken to have at first."""

VALUE_PRIOR_WEIGHT, CANDIDATE_PRIOR_WEIGHT = 1.0, 4.0
"""For how many effects those count."""

CORRELATION_OCTAVES = 2.0
"""Factors of two over which the effects of two numbers become unlike."""

RESIDUAL_CLIP_SDS = 3.0
"""Deviations at which an error counts as no larger: beyond them lies an edge, not a cost."""

EM_ITERATIONS = 30
"""Of the estimate of the variances; further ones change them by less than a per cent."""


@dataclass(frozen=True)
class CovarianceComponent:
    """A part of the covariance: the correlation of all candidates, its variance, and how firmly that is assumed."""

    correlation: np.ndarray
    variance: float
    prior_weight: float
    effect_count: int


def value_effect_posterior(
    measured_candidates: Sequence[Candidate],
    residuals: np.ndarray,
    noise_sd: np.ndarray,
    candidates: Sequence[Candidate],
) -> tuple[np.ndarray, np.ndarray]:
    """(means, covariance) of the logs of candidates: `errors` of those `seen`, `noise` the deviations in them."""
    everything, known = [*measured_candidates, *candidates], slice(0, len(measured_candidates))
    parts = _covariance_components(everything, len(measured_candidates))
    among = np.diag(noise_sd**2)
    start = sum((part.variance * part.correlation for part in parts), np.zeros((len(everything),) * 2))
    most = RESIDUAL_CLIP_SDS * np.sqrt(np.diag(start)[known] + noise_sd**2)
    residuals = np.clip(residuals, -most, most)
    variances = _estimate_variances(parts, known, residuals, among)
    total = sum((v * part.correlation for v, part in zip(variances, parts, strict=True)), np.zeros_like(start))
    new = slice(len(measured_candidates), None)
    gain = total[new, known] @ np.linalg.inv(total[known, known] + among)
    return gain @ residuals, total[new, new] - gain @ total[known, new]


def _covariance_components(candidates: Sequence[Candidate], measured_count: int) -> list[CovarianceComponent]:
    names = sorted({name for candidate in candidates for name in candidate.parameters})
    size = len(candidates)
    keys = [candidate.key for candidate in candidates]
    parts = [CovarianceComponent(np.ones((size, size)), COMMON_SD**2, math.inf, 1)]
    for name in names:
        values = parameter_values(candidates, name)
        if len(set(map(repr, values))) > 1:
            count = len(set(map(repr, values[:measured_count])))
            parts.append(CovarianceComponent(_value_correlation(values), VALUE_EFFECT_SD**2, VALUE_PRIOR_WEIGHT, count))
    parts.append(
        CovarianceComponent(
            equality_matrix(keys, keys), CANDIDATE_SD**2, CANDIDATE_PRIOR_WEIGHT, len(set(keys[:measured_count]))
        )
    )
    return parts


def _estimate_variances(
    components: Sequence[CovarianceComponent],
    measured_slice: slice,
    residuals: np.ndarray,
    noise_covariance: np.ndarray,
) -> list[float]:
    """The variances of the parts, by expectation and maximization."""
    variances = [part.variance for part in components]
    alike = [part.correlation[measured_slice, measured_slice] for part in components]
    for _ in range(EM_ITERATIONS):
        inverse = np.linalg.inv(sum((v * one for v, one in zip(variances, alike, strict=True)), noise_covariance))
        pulled = inverse @ residuals
        for at, part in enumerate(components):
            if not math.isfinite(part.prior_weight):
                continue
            v = variances[at]
            squares = v * part.effect_count + v**2 * float(pulled @ alike[at] @ pulled - np.sum(inverse * alike[at]))
            variances[at] = (part.prior_weight * part.variance + max(squares, 0.0)) / (
                part.prior_weight + part.effect_count
            )
    return variances


def _value_correlation(values: Sequence[Any]) -> np.ndarray:
    """How alike the effects of values are: those of numbers the more the closer these are."""
    names = [repr(value) for value in values]
    found = equality_matrix(names, names)
    numbers = [value if isinstance(value, int | float) and not isinstance(value, bool) else None for value in values]
    logs = np.array([math.log2(value) if value is not None and value > 0 else np.nan for value in numbers])
    near = np.exp(-np.abs(logs[:, None] - logs[None, :]) / CORRELATION_OCTAVES)
    return np.where(np.isnan(near), found, near)


def parameter_values(candidates: Sequence[Candidate], name: str) -> list[Any]:
    """The value that each candidate has of a parameter; a size that is not given is 1."""
    usual = 1 if name.endswith("-size") else None
    return [candidate.parameters.get(name, usual) for candidate in candidates]


def equality_matrix(rows: Sequence[str], columns: Sequence[str]) -> np.ndarray:
    """1 where one of `ones` is one of `others`, else 0; a row for each of the first."""
    found: np.ndarray = (np.array(rows)[:, None] == np.array(columns)[None, :]).astype(float)
    return found
