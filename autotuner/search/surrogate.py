"""Gaussian-process surrogate: predictions corrected by the residuals of what was measured.

A prediction errs because operators cost more or less than the fitted constants say, and because the performance model
is not the engine. Both errors are Gaussian on a log scale. The first one's covariance follows from the sensitivity of
each metric to each kind of operator: candidates that spend their time in the same operators have correlated errors, so
every measured load point informs about all of them. Constants were chosen by hand on 30 worlds of
benchmarks/search/worlds.py other than the 60 in docs/reference/figures.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autotuner.core import PARALLEL_SIZES, Candidate
from autotuner.search.value_effects import RESIDUAL_CLIP_SDS, equality_matrix, parameter_values, value_effect_posterior

LAYOUT_PARAMETERS = (
    *PARALLEL_SIZES,
    "enable-dp-attention",
    "quantization",
    "kv-cache-dtype",
)
"""Parameters that change which operators run where: predictions extrapolate worst over these."""

COST_VARIANCE_SHARES = {
    "weights": (0.5, 0.5, 0.0),
    "matrices": (0.34, 0.33, 0.33),
    "attention": (0.34, 0.33, 0.33),
    "collectives": (0.5, 0.5, 0.0),
    "kernels": (0.34, 0.33, 0.33),
    "host": (0.34, 0.33, 0.33),
}
"""Shares of a cost's error variance: common to all candidates, to equal layouts, to equal other values that affect it.

A layout changes the shapes of matrices and which GPUs exchange what. Other parameters change batches and kernels, but
not how weights are read or collectives run.
"""

AFFECTED_KIND = {
    "max-batched-tokens": "matrices",
    "chunked-prefill-size": "matrices",
    "max-prefill-tokens": "matrices",
    "enable-chunked-prefill": "attention",
    "kv-block-size": "attention",
    "attention-backend": "attention",
    "cuda-graph": "kernels",
    "max-running-requests": "host",
    "schedule-policy": "host",
    "mem-fraction-static": "",
}
"""Parameter -> the kind of operator whose cost error it changes; a parameter that is not listed changes all kinds."""

MODEL_ERROR_SHARES = (0.5, 0.4, 0.08, 0.02)
"""The same shares for the error of the model itself, and last the share of each candidate alone."""

MODEL_ERROR_SD = 0.35
"""Standard deviation of the error of the model itself, in units of that of an operator's log cost."""

SCALE_PRIOR_WEIGHT = 6.0
"""How many measurements the prior variance of log costs counts as."""


@dataclass(frozen=True)
class PredictedMetric:
    """The predicted log of a candidate's metric, and its derivatives by the log costs of the kinds of operators.

    Errors of the model itself are shared by predictions of the same `metric` only and scaled by `model_error_scale`;
    `shared_error_sd` is an error common to all predictions of the metric. Both are in units of the standard deviation
    of log costs. `is_unpredicted` marks a default mean where there is no prediction.
    """

    candidate: Candidate
    metric: str
    log_value: float
    cost_slopes: tuple[float, ...]
    model_error_scale: float = 1.0
    is_unpredicted: bool = False
    shared_error_sd: float = 0.0


@dataclass(frozen=True)
class MeasuredMetric:
    """The measured log of a predicted metric, and the standard deviation of its measurement noise."""

    prediction: PredictedMetric
    log_value: float
    noise_sd: float


@dataclass(frozen=True)
class Surrogate:
    """Gaussian process over log metrics; operator log costs have the prior standard deviation `cost_prior_sd`."""

    cost_prior_sd: float
    measurements: tuple[MeasuredMetric, ...] = ()

    def posterior(self, predictions: Sequence[PredictedMetric]) -> tuple[np.ndarray, np.ndarray]:
        """Posterior (means, covariance) of the log values; predicted and unpredicted ones are independent."""
        means, covariances = (
            np.array([prediction.log_value for prediction in predictions]),
            np.zeros((len(predictions), len(predictions))),
        )
        for unpredicted, correct in ((False, self._cost_posterior), (True, self._value_effect_posterior)):
            indices = [
                index for index, prediction in enumerate(predictions) if prediction.is_unpredicted == unpredicted
            ]
            measurements = [one for one in self.measurements if one.prediction.is_unpredicted == unpredicted]
            if indices:
                selected = [predictions[index] for index in indices]
                corrections, covariances[np.ix_(indices, indices)] = correct(measurements, selected)
                means[indices] += corrections
        return means, covariances

    def _value_effect_posterior(
        self, measurements: Sequence[MeasuredMetric], predictions: Sequence[PredictedMetric]
    ) -> tuple[np.ndarray, np.ndarray]:
        """(corrections to the default mean log, their covariance), by additive effects of parameter values."""
        residuals = np.array([one.log_value - one.prediction.log_value for one in measurements])
        noise_sd = np.array([one.noise_sd for one in measurements])
        measured_candidates = [one.prediction.candidate for one in measurements]
        return value_effect_posterior(measured_candidates, residuals, noise_sd, [one.candidate for one in predictions])

    def _cost_posterior(
        self, measurements: Sequence[MeasuredMetric], predictions: Sequence[PredictedMetric]
    ) -> tuple[np.ndarray, np.ndarray]:
        """(corrections to the predicted logs, their covariance): Gaussian-process regression on the residuals."""
        prior = covariance(predictions, predictions)
        if not measurements:
            return np.zeros(len(predictions)), self.cost_prior_sd**2 * prior
        measured = [one.prediction for one in measurements]
        noise_covariance = np.diag([one.noise_sd**2 for one in measurements])
        measured_prior, cross = covariance(measured, measured), covariance(predictions, measured)
        residuals = self._clipped_residuals(measurements, measured_prior, noise_covariance)
        variance = self._cost_variance(measured_prior, residuals, noise_covariance)
        precision = np.linalg.inv(measured_prior + noise_covariance / variance)
        return cross @ precision @ residuals, variance * (prior - cross @ precision @ cross.T)

    def _clipped_residuals(
        self, measurements: Sequence[MeasuredMetric], prior_covariance: np.ndarray, noise_covariance: np.ndarray
    ) -> np.ndarray:
        """Measured minus predicted logs, winsorized at RESIDUAL_CLIP_SDS prior standard deviations."""
        limit = RESIDUAL_CLIP_SDS * np.sqrt(np.diag(self.cost_prior_sd**2 * prior_covariance + noise_covariance))
        residuals: np.ndarray = np.clip(
            [one.log_value - one.prediction.log_value for one in measurements], -limit, limit
        )
        return residuals

    def _cost_variance(
        self, prior_covariance: np.ndarray, residuals: np.ndarray, noise_covariance: np.ndarray
    ) -> float:
        """Variance of log costs, estimated from the residuals and shrunk towards the prior variance."""
        prior_variance = self.cost_prior_sd**2
        precision = np.linalg.inv(prior_covariance + noise_covariance / prior_variance)
        squares = float(residuals @ precision @ residuals)
        return (SCALE_PRIOR_WEIGHT * prior_variance + squares) / (SCALE_PRIOR_WEIGHT + len(residuals))


def covariance(rows: Sequence[PredictedMetric], columns: Sequence[PredictedMetric]) -> np.ndarray:
    """Prior covariance of the log errors of two lists of predictions, for operator log costs of variance 1."""
    similarity = _Similarity([row.candidate for row in rows], [column.candidate for column in columns])
    layout_names = [name for name in similarity.parameter_names if name in LAYOUT_PARAMETERS]
    other_names = [name for name in similarity.parameter_names if name not in LAYOUT_PARAMETERS]
    equal_layout, equal_others = similarity.equal_share(layout_names), similarity.equal_share(other_names)
    total = np.zeros_like(equal_layout)
    for kind_index, (kind, (common, layout, others)) in enumerate(COST_VARIANCE_SHARES.items()):
        equal_affecting = similarity.equal_share(
            [name for name in other_names if AFFECTED_KIND.get(name, kind) == kind]
        )
        slopes = np.outer(
            [row.cost_slopes[kind_index] for row in rows], [one.cost_slopes[kind_index] for one in columns]
        )
        total += slopes * (common + layout * equal_layout + others * equal_affecting)
    same_metric = equality_matrix([row.metric for row in rows], [column.metric for column in columns])
    total += same_metric * np.outer([row.shared_error_sd for row in rows], [one.shared_error_sd for one in columns])
    scales = np.outer([row.model_error_scale for row in rows], [column.model_error_scale for column in columns])
    common, layout, others, single = MODEL_ERROR_SHARES
    shares = common + layout * equal_layout + others * equal_others + single * similarity.same_candidate
    total += MODEL_ERROR_SD**2 * scales * same_metric * shares
    return total


class _Similarity:
    """Which parameters two lists of candidates have in common, as matrices of shape (rows, columns)."""

    def __init__(self, rows: Sequence[Candidate], columns: Sequence[Candidate]) -> None:
        self.rows, self.columns = rows, columns
        self.parameter_names = sorted({name for candidate in (*rows, *columns) for name in candidate.parameters})
        self.same_candidate = equality_matrix([row.key for row in rows], [column.key for column in columns])

    def equal_share(self, names: Sequence[str]) -> np.ndarray:
        """Share of the named parameters with equal values; 1 without any names."""
        counts = np.zeros(self.same_candidate.shape)
        for name in names:
            row_values, column_values = parameter_values(self.rows, name), parameter_values(self.columns, name)
            counts += equality_matrix([repr(value) for value in row_values], [repr(value) for value in column_values])
        return counts / len(names) if names else np.ones_like(counts)
