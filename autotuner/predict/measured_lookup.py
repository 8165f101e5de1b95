"""What is known of a closed loop: measured here, interpolated between measurements, or predicted."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from autotuner.predict.database import MeasuredRow, dtypes_name, layout_name, rows_for
from autotuner.predict.intervals import Interval
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.model_on_gpus import ModelOnGpus
from autotuner.predict.predict import Prediction
from autotuner.predict.traffic import Traffic

Origin = Literal["measured", "interpolated", "predicted"]
MAX_INTERPOLATION_RATIO = 4.0
"""Ratio of two measured loads or lengths between which is interpolated."""
REPEAT_DIFFERENCE = 0.06
"""Share by which the same configuration measured twice differs."""
COORDINATES = ("concurrency", "isl", "osl")


@dataclass(frozen=True, slots=True)
class LookupResult:
    """A closed loop's figures, where they come from, and the measured load points they rest on."""

    prediction: Prediction
    source: Origin
    rows: tuple[MeasuredRow, ...] = ()

    @property
    def explanation(self) -> str:
        """One sentence on where the figures come from."""
        where = ", ".join(dict.fromkeys(f"{row.run} trial {row.trial} at {row.load}" for row in self.rows))
        if self.source == "measured":
            return f"Measured here: {where}."
        if self.source == "interpolated":
            return f"Interpolated between measurements made here: {where}."
        return "Predicted; nothing near it was measured here."


class MeasuredLookup:
    """The measured load points of one deployment under one kind of request."""

    def __init__(self, load_curve: LoadCurve) -> None:
        self.load_curve = load_curve
        of = load_curve.deployment
        self.rows: list[MeasuredRow] = []
        if load_curve.bundled_only:
            return
        same = (layout_name(of), dtypes_name(of))
        rows = [row for row in rows_for(of) if (row.layout, row.dtypes) == same and _version_matches(row, of)]
        # Flags the closed form does not know: the plainest candidate stands for the deployment.
        plainest = min((_parameter_count(row) for row in rows), default=0)
        asked = load_curve.traffic
        self.rows = [
            row
            for row in rows
            if _parameter_count(row) == plainest
            and row.concurrency is not None
            and not asked.draft_tokens
            and math.isclose(row.prefix, asked.prefix_hit * row.isl, abs_tol=1.0)
        ]

    def at_concurrency(self, concurrency: int) -> LookupResult:
        """What is known of so many requests in flight over all replicas."""
        found = self.load_curve.at_concurrency(concurrency)
        at = (float(concurrency), float(self.load_curve.traffic.isl), float(self.load_curve.traffic.osl))
        exact = [row for row in self.rows if _coordinates(row) == at]
        if exact:
            return LookupResult(_average_rows(found, exact, at), "measured", tuple(exact))
        for lever in range(len(COORDINATES)):
            pair = self._neighbours(at, lever)
            if pair is not None:
                return LookupResult(self._interpolate(found, pair, at, lever), "interpolated", pair)
        return LookupResult(found, "predicted")

    def _neighbours(self, coordinates: tuple[float, ...], axis: int) -> tuple[MeasuredRow, MeasuredRow] | None:
        """The nearest measured load points below and above that differ in this lever alone."""
        line = [
            row
            for row in self.rows
            if all(
                place == wanted
                for i, (place, wanted) in enumerate(zip(_coordinates(row), coordinates, strict=True))
                if i != axis
            )
        ]
        below = max(
            (row for row in line if _coordinates(row)[axis] < coordinates[axis]),
            key=lambda r: _coordinates(r)[axis],
            default=None,
        )
        above = min(
            (row for row in line if _coordinates(row)[axis] > coordinates[axis]),
            key=lambda r: _coordinates(r)[axis],
            default=None,
        )
        if (
            below is None
            or above is None
            or _coordinates(above)[axis] > MAX_INTERPOLATION_RATIO * _coordinates(below)[axis]
        ):
            return None
        return below, above

    def _interpolate(
        self, prediction: Prediction, pair: tuple[MeasuredRow, MeasuredRow], coordinates: tuple[float, ...], axis: int
    ) -> Prediction:
        """The prediction, times what both neighbours were measured over their own predictions.

        The factor's logarithm is linear in that of the lever.
        """
        low, high = (math.log(_coordinates(row)[axis]) for row in pair)
        share = (math.log(coordinates[axis]) - low) / (high - low)
        times, intervals = [], []
        for name in ("ttft", "tpot"):
            ratios = [math.log(getattr(row, name) / getattr(self._predict_row(row), name)) for row in pair]
            value = getattr(prediction, name) * math.exp(ratios[0] + share * (ratios[1] - ratios[0]))
            reach = math.exp(max(REPEAT_DIFFERENCE, abs(ratios[1] - ratios[0]) / 2))
            times.append(value)
            intervals.append(Interval(value / reach, value * reach))
        return _with_times(prediction, times[0], times[1], intervals[0], intervals[1], coordinates)

    def _predict_row(self, row: MeasuredRow) -> Prediction:
        asked = self.load_curve.traffic
        if (row.isl, row.osl) == (asked.isl, asked.osl):
            return self.load_curve.at_concurrency(float(row.concurrency or 1))
        lengths = Traffic(round(row.isl), round(row.osl), asked.prefix_hit)
        other = LoadCurve(self.load_curve.deployment, lengths)
        return other.at_concurrency(float(row.concurrency or 1))


def _average_rows(prediction: Prediction, rows: Sequence[MeasuredRow], coordinates: tuple[float, ...]) -> Prediction:
    """Means over the rows; intervals from the lowest to the highest edge of theirs."""
    times, intervals = [], []
    for name in ("ttft", "tpot"):
        values = [getattr(row, name) for row in rows]
        lows = [getattr(row, f"{name}_low") or value for row, value in zip(rows, values, strict=True)]
        highs = [getattr(row, f"{name}_high") or value for row, value in zip(rows, values, strict=True)]
        times.append(sum(values) / len(values))
        intervals.append(Interval(min(lows), max(highs)))
    known = _with_times(prediction, times[0], times[1], intervals[0], intervals[1], coordinates)
    requests = sum(row.request_throughput for row in rows) / len(rows)
    return replace(known, requests=requests, throughput=sum(row.output_throughput for row in rows) / len(rows))


def _with_times(
    prediction: Prediction,
    ttft: float,
    tpot: float,
    ttft_interval: Interval,
    tpot_interval: Interval,
    coordinates: tuple[float, ...],
) -> Prediction:
    concurrency, _, osl = coordinates
    requests = concurrency / (ttft + (osl - 1) * tpot)
    return replace(
        prediction,
        ttft=ttft,
        tpot=tpot,
        ttft_interval=ttft_interval,
        tpot_interval=tpot_interval,
        requests=requests,
        throughput=requests * osl,
    )


def _coordinates(row: MeasuredRow) -> tuple[float, float, float]:
    return float(row.concurrency or 0), row.isl, row.osl


def _parameter_count(row: MeasuredRow) -> int:
    found: dict[str, object] = json.loads(row.parameters)
    return len(found)


def _version_matches(row: MeasuredRow, deployment: ModelOnGpus) -> bool:
    return deployment.version is None or row.engine_version == deployment.version
