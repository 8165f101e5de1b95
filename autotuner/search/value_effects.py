"""Gaussian process over candidates without predictions: an additive effect of each parameter value.

Effects are Gaussian and add up on a log scale; a remainder belongs to each candidate alone. The variance of each
parameter's effects is estimated from the measurements, shrunk towards a prior (automatic relevance determination,
MacKay 1992). Standard deviations and weights were chosen by hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotuner.core import Candidate

COMMON_SD = 0.2
"""Prior standard deviation of the offset that all candidates share, relative to the assumed mean."""

VALUE_EFFECT_SD, CANDIDATE_SD = 0.15, 0.04
"""Prior standard deviations of the effect of a parameter value, and of the remainder of a single candidate."""

VALUE_PRIOR_WEIGHT, CANDIDATE_PRIOR_WEIGHT = 1.0, 4.0
"""How many effects each of those priors counts as when the variances are estimated."""

CORRELATION_OCTAVES = 2.0
"""Correlation length, in factors of two, between the effects of two numbers; chosen by hand."""

RESIDUAL_CLIP_SDS = 3.0
"""Standard deviations at which residuals are winsorized, as larger ones come from a cliff; the usual 3, by hand."""

EM_ITERATIONS = 30
"""Iterations of expectation maximization; further ones change the variances by less than 1%."""


@dataclass(frozen=True)
class CovarianceComponent:
    """One term of the prior covariance: correlation between candidates times a variance with a weighted prior.

    `effect_count` is the number of distinct effects among the measured candidates.
    """

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
    """Posterior (means, covariance) of the residuals of `candidates`, given those of `measured_candidates`.

    Residuals are logs of measured values minus their assumed means; `noise_sd` has their measurement noise.
    """
    all_candidates, count = [*measured_candidates, *candidates], len(measured_candidates)
    measured, new = slice(0, count), slice(count, None)
    components = _covariance_components(all_candidates, count)
    noise_covariance = np.diag(noise_sd**2)
    prior = sum((one.variance * one.correlation for one in components), np.zeros((len(all_candidates),) * 2))
    limit = RESIDUAL_CLIP_SDS * np.sqrt(np.diag(prior)[measured] + noise_sd**2)
    residuals = np.clip(residuals, -limit, limit)
    variances = _estimate_variances(components, measured, residuals, noise_covariance)
    prior = sum((v * one.correlation for v, one in zip(variances, components, strict=True)), np.zeros_like(prior))
    gain = prior[new, measured] @ np.linalg.inv(prior[measured, measured] + noise_covariance)
    return gain @ residuals, prior[new, new] - gain @ prior[measured, new]


def _covariance_components(candidates: Sequence[Candidate], measured_count: int) -> list[CovarianceComponent]:
    """A shared offset, the effects of each parameter with several values, and each candidate's remainder."""
    names = sorted({name for candidate in candidates for name in candidate.parameters})
    size = len(candidates)
    keys = [candidate.key for candidate in candidates]
    components = [CovarianceComponent(np.ones((size, size)), COMMON_SD**2, math.inf, 1)]
    for name in names:
        values = parameter_values(candidates, name)
        if len(set(map(repr, values))) > 1:
            correlation, count = _value_correlation(values), len(set(map(repr, values[:measured_count])))
            components.append(CovarianceComponent(correlation, VALUE_EFFECT_SD**2, VALUE_PRIOR_WEIGHT, count))
    same_candidate, count = equality_matrix(keys, keys), len(set(keys[:measured_count]))
    components.append(CovarianceComponent(same_candidate, CANDIDATE_SD**2, CANDIDATE_PRIOR_WEIGHT, count))
    return components


def _estimate_variances(
    components: Sequence[CovarianceComponent],
    measured: slice,
    residuals: np.ndarray,
    noise_covariance: np.ndarray,
) -> list[float]:
    """Maximum a posteriori variances of the components, by expectation maximization.

    Each is the posterior mean of the squared effects, averaged with the prior variance by their counts. A component
    with an infinite prior weight keeps its variance.
    """
    variances = [component.variance for component in components]
    kernels = [component.correlation[measured, measured] for component in components]
    for _ in range(EM_ITERATIONS):
        precision = np.linalg.inv(sum((v * one for v, one in zip(variances, kernels, strict=True)), noise_covariance))
        weights = precision @ residuals
        for index, (component, kernel) in enumerate(zip(components, kernels, strict=True)):
            if not math.isfinite(component.prior_weight):
                continue
            v, count = variances[index], component.effect_count
            squares = v * count + v**2 * float(weights @ kernel @ weights - np.sum(precision * kernel))
            prior_squares = component.prior_weight * component.variance
            variances[index] = (prior_squares + max(squares, 0.0)) / (component.prior_weight + count)
    return variances


def _value_correlation(values: Sequence[Any]) -> np.ndarray:
    """Correlation of the effects of values: exponential in log distance for numbers, else 1 for equal values."""
    names = [repr(value) for value in values]
    equality = equality_matrix(names, names)
    numbers = [value if isinstance(value, int | float) and not isinstance(value, bool) else None for value in values]
    logs = np.array([math.log2(value) if value is not None and value > 0 else np.nan for value in numbers])
    kernel = np.exp(-np.abs(logs[:, None] - logs[None, :]) / CORRELATION_OCTAVES)
    return np.where(np.isnan(kernel), equality, kernel)


def parameter_values(candidates: Sequence[Candidate], name: str) -> list[Any]:
    """The value of a parameter in each candidate; an absent parallel size is 1."""
    default = 1 if name.endswith("-size") else None
    return [candidate.parameters.get(name, default) for candidate in candidates]


def equality_matrix(rows: Sequence[str], columns: Sequence[str]) -> np.ndarray:
    """Matrix of shape (rows, columns): 1.0 where the two strings are equal, else 0.0."""
    matrix: np.ndarray = (np.array(rows)[:, None] == np.array(columns)[None, :]).astype(float)
    return matrix
