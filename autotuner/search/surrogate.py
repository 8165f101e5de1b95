"""What is believed of every candidate: what was predicted, corrected by how wrong predictions were elsewhere.

A prediction errs because operators cost more or less than the constants say, and because the
closed form is not the engine. Both are taken as Gaussian on a log scale. The first part follows
from how much each predicted figure depends on each kind of operators: candidates that spend their
time alike err alike, so that every load point that was measured tells of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autotuner.core import Candidate
from autotuner.search.value_effects import RESIDUAL_CLIP_SDS, equality_matrix, parameter_values, value_effect_posterior

LAYOUT_PARAMETERS = (
    "tp-size",
    "pp-size",
    "dp-size",
    "ep-size",
    "enable-dp-attention",
    "quantization",
    "kv-cache-dtype",
)
"""Parameters that change what is computed where, of which predictions are less sure than of the rest."""

COST_VARIANCE_SHARES = {
    "weights": (0.5, 0.5, 0.0),
    "matrices": (0.34, 0.33, 0.33),
    "attention": (0.34, 0.33, 0.33),
    "collectives": (0.5, 0.5, 0.0),
    "kernels": (0.34, 0.33, 0.33),
    "host": (0.34, 0.33, 0.33),
}
"""How the variance of an operator's cost divides: of all candidates, of a layout, of the other values that touch it.

A layout changes the shapes of matrices and who exchanges what. The other values change batches and
kernels, but not how weights are read.
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
"""The kind of operators whose cost a parameter changes, beside what is predicted; one not named changes all."""

MODEL_ERROR_SHARES = (0.5, 0.4, 0.08, 0.02)
"""The same for what the closed form leaves out, and the share of each candidate alone."""

MODEL_ERROR_SD = 0.35
"""The deviation of what the closed form leaves out, that of an operator's log cost being 1."""

SCALE_PRIOR_WEIGHT = 6.0
"""For how many measured figures the assumed scale of the errors counts."""


@dataclass(frozen=True)
class PredictedFigure:
    """One predicted figure of a candidate: `value` is its log, `slopes` what a log unit of each kind's cost adds.

    `name` tells figures of different kinds apart: only those of one kind are off alike by what the
    closed form leaves out. `doubt` scales that part; `guess` says that nothing was predicted. `level` is
    the deviation of an error that all figures of the name share, that of an operator's log cost being 1.
    """

    candidate: Candidate
    metric: str
    log_value: float
    cost_slopes: tuple[float, ...]
    model_error_scale: float = 1.0
    is_unpredicted: bool = False
    shared_error_sd: float = 0.0


@dataclass(frozen=True)
class MeasuredFigure:
    """A figure that was measured: the log of what came out, and the deviation of that from noise alone."""

    figure: PredictedFigure
    log_value: float
    noise_sd: float


@dataclass(frozen=True)
class Surrogate:
    """The log costs of operators as a Gaussian of deviation `sd`, before and after figures were `seen`."""

    cost_prior_sd: float
    measurements: tuple[MeasuredFigure, ...] = ()

    def posterior(self, figures: Sequence[PredictedFigure]) -> tuple[np.ndarray, np.ndarray]:
        """(means, covariance) of the logs of figures; guesses and predictions tell nothing of each other."""
        means, shared = np.array([figure.log_value for figure in figures]), np.zeros((len(figures), len(figures)))
        for guesses, of in ((False, self._cost_posterior), (True, self._value_effect_posterior)):
            at = [position for position, figure in enumerate(figures) if figure.is_unpredicted == guesses]
            seen = [seen for seen in self.measurements if seen.figure.is_unpredicted == guesses]
            if at:
                off, shared[np.ix_(at, at)] = of(seen, [figures[position] for position in at])
                means[at] += off
        return means, shared

    def _value_effect_posterior(
        self, measurements: Sequence[MeasuredFigure], figures: Sequence[PredictedFigure]
    ) -> tuple[np.ndarray, np.ndarray]:
        errors = np.array([one.log_value - one.figure.log_value for one in measurements])
        noise = np.array([one.noise_sd for one in measurements])
        return value_effect_posterior(
            [one.figure.candidate for one in measurements], errors, noise, [one.candidate for one in figures]
        )

    def _cost_posterior(
        self, measurements: Sequence[MeasuredFigure], figures: Sequence[PredictedFigure]
    ) -> tuple[np.ndarray, np.ndarray]:
        """(what is to be added to the predictions, its covariance)."""
        own = covariance(figures, figures)
        if not measurements:
            return np.zeros(len(figures)), self.cost_prior_sd**2 * own
        known = [one.figure for one in measurements]
        noise = np.diag([one.noise_sd**2 for one in measurements])
        among, shared = covariance(known, known), covariance(figures, known)
        errors = self._clipped_residuals(measurements, among, noise)
        scale = self._variance_scale(among, errors, noise)
        inverse = np.linalg.inv(among + noise / scale)
        return shared @ inverse @ errors, scale * (own - shared @ inverse @ shared.T)

    def _clipped_residuals(
        self, measurements: Sequence[MeasuredFigure], prior_covariance: np.ndarray, noise_covariance: np.ndarray
    ) -> np.ndarray:
        """Measured less predicted, no further off than FAR."""
        most = RESIDUAL_CLIP_SDS * np.sqrt(np.diag(self.cost_prior_sd**2 * prior_covariance + noise_covariance))
        found: np.ndarray = np.clip([one.log_value - one.figure.log_value for one in measurements], -most, most)
        return found

    def _variance_scale(
        self, prior_covariance: np.ndarray, residuals: np.ndarray, noise_covariance: np.ndarray
    ) -> float:
        """The variance of log costs, by what was seen, shrunk towards the assumed one."""
        squares = float(
            residuals @ np.linalg.inv(prior_covariance + noise_covariance / self.cost_prior_sd**2) @ residuals
        )
        return (SCALE_PRIOR_WEIGHT * self.cost_prior_sd**2 + squares) / (SCALE_PRIOR_WEIGHT + len(residuals))


def covariance(rows: Sequence[PredictedFigure], columns: Sequence[PredictedFigure]) -> np.ndarray:
    """The covariance of the errors of figures, that of an operator's log cost having variance 1."""
    alike = _Similarity([one.candidate for one in rows], [other.candidate for other in columns])
    rest = [name for name in alike.parameter_names if name not in LAYOUT_PARAMETERS]
    layouts, flags = (
        alike.equal_share([name for name in alike.parameter_names if name in LAYOUT_PARAMETERS]),
        alike.equal_share(rest),
    )
    found = np.zeros_like(layouts)
    for position, (kind, (every, layout, other)) in enumerate(COST_VARIANCE_SHARES.items()):
        touching = alike.equal_share([name for name in rest if AFFECTED_KIND.get(name, kind) == kind])
        slopes = np.outer(
            [one.cost_slopes[position] for one in rows], [other.cost_slopes[position] for other in columns]
        )
        found += slopes * (every + layout * layouts + other * touching)
    same_name = equality_matrix([one.metric for one in rows], [other.metric for other in columns])
    doubts = np.outer([one.model_error_scale for one in rows], [other.model_error_scale for other in columns])
    found += same_name * np.outer([one.shared_error_sd for one in rows], [other.shared_error_sd for other in columns])
    every, layout, other, own = MODEL_ERROR_SHARES
    found += (
        MODEL_ERROR_SD**2 * doubts * same_name * (every + layout * layouts + other * flags + own * alike.same_candidate)
    )
    return found


class _Similarity:
    """What each of some candidates has in common with each of others."""

    def __init__(self, rows: Sequence[Candidate], columns: Sequence[Candidate]) -> None:
        self.rows, self.columns = rows, columns
        self.parameter_names = sorted({name for candidate in (*rows, *columns) for name in candidate.parameters})
        self.same_candidate = equality_matrix([one.key for one in rows], [other.key for other in columns])

    def equal_share(self, names: Sequence[str]) -> np.ndarray:
        """The share of these parameters in which they are equal, 1 where there are none."""
        found = np.zeros(self.same_candidate.shape)
        for name in names:
            ones, others = parameter_values(self.rows, name), parameter_values(self.columns, name)
            found += equality_matrix([repr(value) for value in ones], [repr(value) for value in others])
        return found / len(names) if names else np.ones_like(found)
