"""Figures of a closed loop: measured on this machine, interpolated between its measurements, or predicted."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from autotuner.errors import ConfigError
from autotuner.predict import database
from autotuner.predict.candidate import MODELLED_PARAMETERS
from autotuner.predict.database import MeasuredRow, dtypes_name, layout_name, rows_for
from autotuner.predict.intervals import Interval
from autotuner.predict.layout import Layout
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.local_ratios import Correction, measured_ratio, ratios_key
from autotuner.predict.log_ratios import MeasuredRatio
from autotuner.predict.model_on_gpus import ModelOnGpus
from autotuner.predict.predict import Prediction
from autotuner.predict.traffic import Traffic

Origin = Literal["measured", "interpolated", "predicted"]
MAX_INTERPOLATION_RATIO = 4.0
"""Largest ratio of two measured loads or lengths that are interpolated between; chosen by hand."""
REPEAT_DIFFERENCE = 0.06
"""Relative difference of repeated measurements: 2 to 6% in the rows that constants.yaml was fitted on."""
MAX_CORRECTING_POINTS = 60
"""Newest load points that predictions are corrected by; chosen by hand, they say all of the five coefficients."""
COORDINATES = ("concurrency", "isl", "osl")


@dataclass(frozen=True, slots=True)
class LookupResult:
    """The figures of a closed loop, their source, and the measured load points they rest on."""

    prediction: Prediction
    source: Origin
    rows: tuple[MeasuredRow, ...] = ()
    correcting_points: int = 0

    @property
    def explanation(self) -> str:
        """One sentence about the source of the figures."""
        where = ", ".join(dict.fromkeys(f"{row.run} trial {row.trial} at {row.load}" for row in self.rows))
        if self.source == "measured":
            return f"Measured here: {where}."
        if self.source == "interpolated":
            return f"Interpolated between measurements made here: {where}."
        if self.correcting_points:
            points = "load point" if self.correcting_points == 1 else "load points"
            return f"Predicted, and corrected by {self.correcting_points} {points} of this model measured here."
        return "Predicted; nothing near it was measured here."


class MeasuredLookup:
    """The load points measured on this machine for one deployment and traffic, beside their predictions."""

    def __init__(self, load_curve: LoadCurve) -> None:
        """Select the measured load points of this deployment, with traffic of the same prefix-cache hit rate."""
        self.load_curve = load_curve
        deployment, traffic = load_curve.deployment, load_curve.traffic
        self.rows: list[MeasuredRow] = []
        self.correction: Correction | None = None
        if load_curve.bundled_only:
            return
        stored = database_ratios(deployment)
        if stored:
            calibrated = load_curve.ratios.ratios if load_curve.ratios else ()
            launches = {ratio.launch for ratio in stored}
            ratios = (*stored, *(ratio for ratio in calibrated if ratio.launch not in launches))
            self.correction = Correction(ratios, deployment, traffic)
        names = (layout_name(deployment), dtypes_name(deployment))
        rows = [
            row
            for row in rows_for(deployment)
            if (row.layout, row.dtypes) == names and _version_matches(row, deployment)
        ]
        # Predictions do not model every flag: the candidates that set the fewest stand for the deployment.
        fewest = min((_parameter_count(row) for row in rows), default=0)
        self.rows = [
            row
            for row in rows
            if _parameter_count(row) == fewest
            and row.concurrency is not None
            and not traffic.draft_tokens
            and math.isclose(row.prefix, traffic.prefix_hit * row.isl, abs_tol=1.0)
        ]

    def at_concurrency(self, concurrency: int) -> LookupResult:
        """Figures with this many requests in flight over all replicas: measured, else interpolated, else predicted."""
        prediction = self.load_curve.at_concurrency(concurrency)
        coordinates = (float(concurrency), float(self.load_curve.traffic.isl), float(self.load_curve.traffic.osl))
        rows = [row for row in self.rows if _coordinates(row) == coordinates]
        if rows:
            return LookupResult(_average_rows(prediction, rows), "measured", tuple(rows))
        for axis in range(len(COORDINATES)):
            pair = self._neighbours(coordinates, axis)
            if pair is not None:
                return LookupResult(self._interpolate(prediction, pair, coordinates, axis), "interpolated", pair)
        if self.correction is None:
            return LookupResult(prediction, "predicted")
        bundled = LoadCurve(
            self.load_curve.deployment, self.load_curve.traffic, bundled_only=True, harness=self.load_curve.harness
        ).at_concurrency(concurrency)
        corrected = self.correction.apply(bundled, concurrency)
        return LookupResult(corrected, "predicted", correcting_points=len(self.correction.ratios))

    def _neighbours(self, coordinates: tuple[float, ...], axis: int) -> tuple[MeasuredRow, MeasuredRow] | None:
        """The nearest measured load points below and above along one axis, equal on the others; None where too far."""

        def position(row: MeasuredRow) -> float:
            return _coordinates(row)[axis]

        target = coordinates[axis]
        line = [
            row
            for row in self.rows
            if all(_coordinates(row)[i] == value for i, value in enumerate(coordinates) if i != axis)
        ]
        below = max((row for row in line if position(row) < target), key=position, default=None)
        above = min((row for row in line if position(row) > target), key=position, default=None)
        if below is None or above is None or position(above) > MAX_INTERPOLATION_RATIO * position(below):
            return None
        return below, above

    def _interpolate(
        self, prediction: Prediction, pair: tuple[MeasuredRow, MeasuredRow], coordinates: tuple[float, ...], axis: int
    ) -> Prediction:
        """The prediction times the measured-to-predicted ratio of the neighbours, log-linear along the axis."""
        lower, upper = (math.log(_coordinates(row)[axis]) for row in pair)
        share = (math.log(coordinates[axis]) - lower) / (upper - lower)
        times: dict[str, Any] = {}
        for name in ("ttft", "tpot"):
            ratios = [math.log(getattr(row, name) / getattr(self._predict_row(row), name)) for row in pair]
            value = getattr(prediction, name) * math.exp(ratios[0] + share * (ratios[1] - ratios[0]))
            margin = math.exp(max(REPEAT_DIFFERENCE, abs(ratios[1] - ratios[0]) / 2))
            times |= {name: value, f"{name}_interval": Interval(value / margin, value * margin)}
        return _with_closed_loop_rates(prediction, times, coordinates)

    def _predict_row(self, row: MeasuredRow) -> Prediction:
        traffic, load_curve = self.load_curve.traffic, self.load_curve
        if (row.isl, row.osl) != (traffic.isl, traffic.osl):
            row_traffic = Traffic(round(row.isl), round(row.osl), traffic.prefix_hit)
            load_curve = LoadCurve(load_curve.deployment, row_traffic)
        return load_curve.at_concurrency(float(row.concurrency or 1))


def database_ratios(deployment: ModelOnGpus) -> tuple[MeasuredRatio, ...]:
    """Measured over predicted times of the newest load points of this model, engine and GPU type in any layout.

    Only candidates whose flags the predictor models and with this deployment's dtypes count.
    """
    path = database.path()
    if not path.is_file():
        return ()
    return _database_ratios(
        path.stat().st_mtime_ns, ratios_key(deployment), dtypes_name(deployment), _AnyLayout(deployment)
    )


class _AnyLayout:
    """A deployment for a cache that is keyed by what its layouts have in common."""

    def __init__(self, deployment: ModelOnGpus) -> None:
        self.deployment = deployment

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _AnyLayout)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=16)
def _database_ratios(modified_ns: int, key: str, dtypes: str, any_layout: _AnyLayout) -> tuple[MeasuredRatio, ...]:
    ratios = list[MeasuredRatio]()
    for row in rows_for(any_layout.deployment):
        layout = _read_layout(row.layout or "")
        if row.dtypes != dtypes or layout is None or not row.concurrency or not row.ttft or not row.tpot:
            continue
        if not set(json.loads(row.parameters)) <= MODELLED_PARAMETERS:
            continue
        deployment = replace(any_layout.deployment, layout=layout)
        isl, osl = max(1, round(row.isl)), max(1, round(row.osl))
        traffic = Traffic(isl, osl, prefix_hit=min(row.prefix / isl, 1 - 1 / isl))
        try:
            prediction = LoadCurve(deployment, traffic, bundled_only=True).at_concurrency(row.concurrency)
        except ConfigError:
            continue
        launch = f"{row.run} {row.trial}"
        ratios.append(measured_ratio(launch, deployment, traffic, row.concurrency, prediction, row.ttft, row.tpot))
        if len(ratios) == MAX_CORRECTING_POINTS:
            break
    return tuple(ratios)


def _read_layout(text: str) -> Layout | None:
    """A layout as `layout_name` writes it; None where it is none."""
    match = re.fullmatch(r"tp(\d+) pp(\d+) dp(\d+) ep(\d+)", text)
    return Layout(int(match[1]), int(match[2]), int(match[3]), ep=int(match[4])) if match else None


def _average_rows(prediction: Prediction, rows: Sequence[MeasuredRow]) -> Prediction:
    """The prediction with TTFT, TPOT (seconds) and rates replaced by the means of measured rows at its load point.

    An interval of a latency spans the intervals of all rows.
    """
    times: dict[str, Any] = {}
    for name in ("ttft", "tpot"):
        values = [getattr(row, name) for row in rows]
        lower = [getattr(row, f"{name}_low") or value for row, value in zip(rows, values, strict=True)]
        upper = [getattr(row, f"{name}_high") or value for row, value in zip(rows, values, strict=True)]
        times |= {name: sum(values) / len(values), f"{name}_interval": Interval(min(lower), max(upper))}
    request_rate = sum(row.request_throughput for row in rows) / len(rows)
    token_rate = sum(row.output_throughput for row in rows) / len(rows)
    return replace(prediction, **times, requests=request_rate, throughput=token_rate)


def _with_closed_loop_rates(
    prediction: Prediction, times: Mapping[str, Any], coordinates: tuple[float, ...]
) -> Prediction:
    """The prediction with these latencies in seconds, and the rates that follow by Little's law.

    `coordinates` are concurrency, prompt length and output length.
    """
    concurrency, _, osl = coordinates
    requests = concurrency / (times["ttft"] + (osl - 1) * times["tpot"])
    return replace(prediction, **times, requests=requests, throughput=requests * osl)


def _coordinates(row: MeasuredRow) -> tuple[float, float, float]:
    """Where a row lies among the measurements: concurrency, mean prompt length, mean output length."""
    return float(row.concurrency or 0), row.isl, row.osl


def _parameter_count(row: MeasuredRow) -> int:
    parameters: dict[str, object] = json.loads(row.parameters)
    return len(parameters)


def _version_matches(row: MeasuredRow, deployment: ModelOnGpus) -> bool:
    return deployment.version is None or row.engine_version == deployment.version
