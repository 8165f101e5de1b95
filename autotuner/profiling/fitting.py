"""Smooth, monotone curves through the points: TTFT over prompt length, ITL over requests and context.

Both are sums of increasing functions with coefficients that are not negative, fitted to relative errors by
non-negative least squares (Lawson and Hanson, 1974), so that no noisy point makes a curve fall.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from autotuner.profiling.points import DecodePoint, PrefillPoint

TTFT_KNOTS = 4
"""Prompt lengths from which on TTFT may rise faster: where the GPU becomes busy, where attention dominates."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class TtftCurve:
    """TTFT in seconds over the prompt length in tokens, increasing and convex."""

    coefficients: Array
    knots: Array
    longest: float

    @classmethod
    def fit(cls, points: Sequence[PrefillPoint]) -> TtftCurve:
        """Fit the points' medians; ValueError without points."""
        lengths = np.array([point.prompt_tokens for point in points], dtype=float)
        ttfts = np.array([point.ttft for point in points])
        if not len(points):
            raise ValueError("a curve needs points")
        ratio, count = lengths.max() / lengths.min(), TTFT_KNOTS
        knots = lengths.min() * ratio ** (np.arange(1, count + 1) / (count + 1)) if ratio > 1 else np.array([])
        features = _ttft_features(lengths, knots, lengths.max())
        return cls(_fit_relative(features, ttfts), knots, float(lengths.max()))

    def __call__(self, prompt_tokens: float | Array) -> Array:
        """TTFT in seconds, of one length or of an array of them."""
        lengths = np.atleast_1d(np.asarray(prompt_tokens, dtype=float))
        ttfts: Array = _ttft_features(lengths, self.knots, self.longest) @ self.coefficients
        return ttfts


def _ttft_features(lengths: Array, knots: Array, longest: float) -> Array:
    """Constant, linear and quadratic terms, and a smooth hinge at each knot."""
    scaled = lengths / longest
    columns = [np.ones_like(scaled), scaled, scaled**2]
    for knot in knots / longest:
        width = knot / 4
        columns.append(width * np.logaddexp(0.0, (scaled - knot) / width) - width * np.logaddexp(0.0, -knot / width))
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class ItlSurface:
    """ITL in seconds over requests in flight and context length in tokens, increasing in both."""

    coefficients: Array
    scales: tuple[float, float]

    @classmethod
    def fit(cls, points: Sequence[DecodePoint]) -> ItlSurface:
        """Fit the points; ValueError without points."""
        if not points:
            raise ValueError("a surface needs points")
        requests = np.array([point.concurrency for point in points], dtype=float)
        contexts = np.array([point.context_length for point in points])
        scales = float(requests.max()), float((requests * contexts).max())
        features = _itl_features(requests, contexts, scales)
        return cls(_fit_relative(features, np.array([point.itl for point in points])), scales)

    def __call__(self, requests: float | Array, context_length: float | Array) -> Array:
        """ITL in seconds, of numbers or of arrays of one shape."""
        features = _itl_features(
            np.atleast_1d(np.asarray(requests, dtype=float)),
            np.atleast_1d(np.asarray(context_length, dtype=float)),
            self.scales,
        )
        itls: Array = features @ self.coefficients
        return itls


def _itl_features(requests: Array, contexts: Array, scales: tuple[float, float]) -> Array:
    """Increasing functions of the batch, of the KV tokens it reads, and of both: weights, activations, attention."""
    batch, cached = requests / scales[0], requests * contexts / scales[1]
    columns = [np.ones_like(batch), np.sqrt(batch), batch, batch**2, np.sqrt(cached), cached, cached**2]
    return np.stack(columns, axis=-1)


def _fit_relative(features: Array, values: Array) -> Array:
    """Coefficients of at least 0 with the least squares of relative errors."""
    from scipy.optimize import nnls

    coefficients, _ = nnls(features / values[:, None], np.ones_like(values))
    fitted: Array = coefficients
    return fitted


PointType = TypeVar("PointType", PrefillPoint, DecodePoint)


@dataclass(frozen=True)
class LeaveOneOut(Generic[PointType]):
    """Relative errors of the curve at points that it was not fitted to; the outermost points are not left out."""

    errors: tuple[tuple[PointType, float], ...]

    @property
    def median(self) -> float | None:
        """Median of the absolute errors; None where no point could be left out."""
        return statistics.median(abs(error) for _, error in self.errors) if self.errors else None

    @property
    def worst(self) -> tuple[PointType, float] | None:
        """The point with the largest error, and that error."""
        return max(self.errors, key=lambda item: abs(item[1]), default=None)


MIN_FITTED_POINTS = 4
"""A curve through fewer points says nothing about one that was left out."""


def ttft_errors(points: Sequence[PrefillPoint]) -> LeaveOneOut[PrefillPoint]:
    """Errors of TTFT at each inner prompt length, of a curve through all the others."""
    ordered = sorted(points, key=lambda point: point.prompt_tokens)
    return _leave_one_out(
        ordered, ordered[1:-1], TtftCurve.fit, lambda curve, p: curve(p.prompt_tokens)[0], lambda p: p.ttft
    )


def itl_errors(points: Sequence[DecodePoint]) -> LeaveOneOut[DecodePoint]:
    """Errors of ITL at each point, of a surface through all the others."""
    return _leave_one_out(
        points, points, ItlSurface.fit, lambda surface, p: surface(p.concurrency, p.context_length)[0], lambda p: p.itl
    )


CurveType = TypeVar("CurveType")


def _leave_one_out(
    points: Sequence[PointType],
    left_out: Sequence[PointType],
    fit: Callable[[Sequence[PointType]], CurveType],
    predict: Callable[[CurveType, PointType], float],
    value: Callable[[PointType], float],
) -> LeaveOneOut[PointType]:
    if len(points) <= MIN_FITTED_POINTS:
        return LeaveOneOut(())
    errors = []
    for point in left_out:
        curve = fit([other for other in points if other is not point])
        errors.append((point, float(predict(curve, point)) / value(point) - 1))
    return LeaveOneOut(tuple(errors))
