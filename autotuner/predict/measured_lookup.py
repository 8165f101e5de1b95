"""What is known of a closed loop: measured here, interpolated between measurements, or predicted."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from autotuner.predict.database import Row, dtypes_name, layout_name, rows_of
from autotuner.predict.intervals import Interval
from autotuner.predict.load_curve import Served
from autotuner.predict.model_on_gpus import Deployment
from autotuner.predict.predict import Prediction
from autotuner.predict.traffic import Traffic

Origin = Literal["measured", "interpolated", "predicted"]
FARTHEST = 4.0
"""Ratio of two measured loads or lengths between which is interpolated."""
REPEATS = 0.06
"""Share by which the same configuration measured twice differs."""
LEVERS = ("concurrency", "isl", "osl")


@dataclass(frozen=True, slots=True)
class Answer:
    """A closed loop's figures, where they come from, and the measured load points they rest on."""

    found: Prediction
    source: Origin
    rows: tuple[Row, ...] = ()

    @property
    def said(self) -> str:
        """One sentence on where the figures come from."""
        where = ", ".join(dict.fromkeys(f"{row.run} trial {row.trial} at {row.load}" for row in self.rows))
        if self.source == "measured":
            return f"Measured here: {where}."
        if self.source == "interpolated":
            return f"Interpolated between measurements made here: {where}."
        return "Predicted; nothing near it was measured here."


class Memory:
    """The measured load points of one deployment under one kind of request."""

    def __init__(self, served: Served) -> None:
        self.served = served
        of = served.of
        self.rows: list[Row] = []
        if served.bundled_only:
            return
        same = (layout_name(of), dtypes_name(of))
        rows = [row for row in rows_of(of) if (row.layout, row.dtypes) == same and _version_fits(row, of)]
        # Flags the closed form does not know: the plainest candidate stands for the deployment.
        plainest = min((_flags(row) for row in rows), default=0)
        asked = served.traffic
        self.rows = [
            row
            for row in rows
            if _flags(row) == plainest
            and row.concurrency is not None
            and not asked.draft_tokens
            and math.isclose(row.prefix, asked.prefix_hit * row.isl, abs_tol=1.0)
        ]

    def closed(self, concurrency: int) -> Answer:
        """What is known of so many requests in flight over all replicas."""
        found = self.served.closed(concurrency)
        at = (float(concurrency), float(self.served.traffic.isl), float(self.served.traffic.osl))
        exact = [row for row in self.rows if _place(row) == at]
        if exact:
            return Answer(_measured(found, exact, at), "measured", tuple(exact))
        for lever in range(len(LEVERS)):
            pair = self._around(at, lever)
            if pair is not None:
                return Answer(self._between(found, pair, at, lever), "interpolated", pair)
        return Answer(found, "predicted")

    def _around(self, at: tuple[float, ...], lever: int) -> tuple[Row, Row] | None:
        """The nearest measured load points below and above that differ in this lever alone."""
        line = [
            row
            for row in self.rows
            if all(place == wanted for i, (place, wanted) in enumerate(zip(_place(row), at, strict=True)) if i != lever)
        ]
        below = max(
            (row for row in line if _place(row)[lever] < at[lever]), key=lambda r: _place(r)[lever], default=None
        )
        above = min(
            (row for row in line if _place(row)[lever] > at[lever]), key=lambda r: _place(r)[lever], default=None
        )
        if below is None or above is None or _place(above)[lever] > FARTHEST * _place(below)[lever]:
            return None
        return below, above

    def _between(self, found: Prediction, pair: tuple[Row, Row], at: tuple[float, ...], lever: int) -> Prediction:
        """The prediction, times what both neighbours were measured over their own predictions.

        The factor's logarithm is linear in that of the lever.
        """
        low, high = (math.log(_place(row)[lever]) for row in pair)
        share = (math.log(at[lever]) - low) / (high - low)
        times, intervals = [], []
        for name in ("ttft", "tpot"):
            ratios = [math.log(getattr(row, name) / getattr(self._predicted(row), name)) for row in pair]
            value = getattr(found, name) * math.exp(ratios[0] + share * (ratios[1] - ratios[0]))
            reach = math.exp(max(REPEATS, abs(ratios[1] - ratios[0]) / 2))
            times.append(value)
            intervals.append(Interval(value / reach, value * reach))
        return _with(found, times[0], times[1], intervals[0], intervals[1], at)

    def _predicted(self, row: Row) -> Prediction:
        asked = self.served.traffic
        if (row.isl, row.osl) == (asked.isl, asked.osl):
            return self.served.closed(float(row.concurrency or 1))
        lengths = Traffic(round(row.isl), round(row.osl), asked.prefix_hit)
        other = Served(self.served.of, lengths)
        return other.closed(float(row.concurrency or 1))


def _measured(found: Prediction, rows: Sequence[Row], at: tuple[float, ...]) -> Prediction:
    """Means over the rows; intervals from the lowest to the highest edge of theirs."""
    times, intervals = [], []
    for name in ("ttft", "tpot"):
        values = [getattr(row, name) for row in rows]
        lows = [getattr(row, f"{name}_low") or value for row, value in zip(rows, values, strict=True)]
        highs = [getattr(row, f"{name}_high") or value for row, value in zip(rows, values, strict=True)]
        times.append(sum(values) / len(values))
        intervals.append(Interval(min(lows), max(highs)))
    known = _with(found, times[0], times[1], intervals[0], intervals[1], at)
    requests = sum(row.request_throughput for row in rows) / len(rows)
    return replace(known, requests=requests, throughput=sum(row.output_throughput for row in rows) / len(rows))


def _with(
    found: Prediction, ttft: float, tpot: float, first: Interval, each: Interval, at: tuple[float, ...]
) -> Prediction:
    concurrency, _, osl = at
    requests = concurrency / (ttft + (osl - 1) * tpot)
    return replace(
        found,
        ttft=ttft,
        tpot=tpot,
        ttft_interval=first,
        tpot_interval=each,
        requests=requests,
        throughput=requests * osl,
    )


def _place(row: Row) -> tuple[float, float, float]:
    return float(row.concurrency or 0), row.isl, row.osl


def _flags(row: Row) -> int:
    found: dict[str, object] = json.loads(row.parameters)
    return len(found)


def _version_fits(row: Row, of: Deployment) -> bool:
    return of.version is None or row.engine_version == of.version
