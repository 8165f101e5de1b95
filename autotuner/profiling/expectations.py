"""What the mappings that were not launched yet may still reach, from predictions corrected by those that were."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from autotuner.profiling.grid import DECODE_WINDOW_TOKENS, decode_shape
from autotuner.profiling.mappings import ParallelMapping
from autotuner.profiling.points import DecodeLoad, DecodePoint, PrefillLoad, PrefillPoint
from autotuner.profiling.predicted import WorkerForecast
from autotuner.profiling.record import ProfileRecord
from autotuner.profiling.select import Phase, WorkerSelection, select

DOUBT = 1.3
"""A mapping is hopeless only if it would lose even with latency and throughput this much better than expected."""

Standing = tuple[bool, float]
"""(Whether the target is met, tokens/s per GPU if so, else the negative ratio of latency to target); more is better."""


@dataclass(frozen=True)
class PhaseFigures:
    """Latency in seconds and tokens/s per GPU of one phase of a worker."""

    latency: float
    throughput_per_gpu: float

    def standing(self, target: float, doubt: float = 1.0) -> Standing:
        """How it compares with others under a latency target, `doubt` times better than it is."""
        ratio = self.latency / doubt / target
        return (True, self.throughput_per_gpu * doubt) if ratio <= 1 else (False, -ratio)


@dataclass
class Expectations:
    """Measured and expected figures of all mappings of a profile; a `Leader` of its schedules.

    `forecasts` holds the predictions of mappings that can be predicted, `pending` the mappings still to launch.
    A mapping that misses its target leads only with `accept_nearest`.
    """

    record: ProfileRecord
    forecasts: dict[ParallelMapping, WorkerForecast]
    pending: list[ParallelMapping]
    accept_nearest: bool = False
    _predicted: dict[tuple[Phase, ParallelMapping, float], PhaseFigures | None] = field(default_factory=dict)

    def leads_prefill(self, mapping: ParallelMapping) -> bool:
        """Whether no other mapping is measured or expected to be the better prefill worker; see Leader."""
        return self._leads("prefill", mapping)

    def leads_decode(self, mapping: ParallelMapping) -> bool:
        """Whether no other mapping is measured or expected to be the better decode worker; see Leader."""
        return self._leads("decode", mapping)

    def _leads(self, phase: Phase, mapping: ParallelMapping) -> bool:
        selection = select(self.record)
        pick = selection.prefill_pick if phase == "prefill" else selection.decode_pick
        if pick is None or pick.mapping != mapping or not (pick.meets_target or self.accept_nearest):
            return False
        own = self._measured(selection, phase)
        others = (self.expected(phase, other) for other in self.pending if other != mapping)
        target = self._target(phase)
        return own is not None and all(
            other is None or other.standing(target) <= own.standing(target) for other in others
        )

    def in_order(self) -> list[ParallelMapping]:
        """The pending mappings, the most promising first; those that cannot be predicted come before all others."""

        def promise(mapping: ParallelMapping) -> tuple[Standing, ...]:
            standings = []
            phases: Sequence[Phase] = ("decode", "prefill")
            for phase in phases:
                figures = self.expected(phase, mapping)
                standings.append(figures.standing(self._target(phase)) if figures else (True, math.inf))
            return tuple(standings)

        return sorted(self.pending, key=promise, reverse=True)

    def why_hopeless(self, mapping: ParallelMapping) -> str | None:
        """Why a launch of the mapping would be wasted, None where it may win a phase or nothing is known."""
        selection, reasons = select(self.record), []
        phases: Sequence[Phase] = ("prefill", "decode")
        for phase in phases:
            best, figures = self._measured(selection, phase), self.expected(phase, mapping)
            if best is None or figures is None:
                return None
            target = self._target(phase)
            if figures.standing(target, DOUBT) >= best.standing(target):
                return None
            expected, measured = (
                f"{1000 * one.latency:,.1f} ms and {one.throughput_per_gpu:,.0f} tokens/s per GPU"
                for one in (figures, best)
            )
            reasons.append(f"{phase} is expected at {expected}, the best so far has {measured}")
        return "; ".join(reasons)

    def expected(self, phase: Phase, mapping: ParallelMapping) -> PhaseFigures | None:
        """Predicted figures times the mean ratio of measured to predicted latency so far; None without a forecast."""
        ratio = self._mean_ratio(phase)
        predicted = self._prediction(phase, mapping, ratio)
        if predicted is None:
            return None
        return PhaseFigures(predicted.latency * ratio, predicted.throughput_per_gpu / ratio)

    def _prediction(self, phase: Phase, mapping: ParallelMapping, ratio: float) -> PhaseFigures | None:
        key = (phase, mapping, ratio)
        if key not in self._predicted:
            self._predicted[key] = self._predict(*key)
        return self._predicted[key]

    def _predict(self, phase: Phase, mapping: ParallelMapping, ratio: float) -> PhaseFigures | None:
        """The prediction at the requests in flight that are best where latencies are `ratio` times the predicted."""
        forecast, request = self.forecasts.get(mapping), self.record.request
        if forecast is None:
            return None
        if phase == "prefill":
            prefill = forecast.prefill_point(PrefillLoad(request.isl, 1, mapping.attention_dp))
            return None if prefill.rejection else PhaseFigures(prefill.ttft, prefill.throughput_per_gpu)
        shape = decode_shape(request.context_length, min(request.osl, DECODE_WINDOW_TOKENS))
        decode = forecast.best_decode(*shape, request.itl / ratio)
        return PhaseFigures(decode.itl, decode.throughput_per_gpu) if decode else None

    def _mean_ratio(self, phase: Phase) -> float:
        """Geometric mean over the measured mappings of measured to predicted latency; 1 before the first."""
        logs = []
        for mapping in self.record.points:
            predicted_latency: Callable[[PrefillPoint | DecodePoint], float | None]
            points: Sequence[PrefillPoint | DecodePoint]
            if phase == "prefill":
                points, predicted_latency = self.record.prefill_points(mapping), self._predicted_ttft(mapping)
            else:
                points, predicted_latency = self.record.decode_points(mapping), self._predicted_itl(mapping)
            for point in points:
                latency = point.ttft if isinstance(point, PrefillPoint) else point.itl
                predicted = predicted_latency(point) if point.rejection is None else None
                if predicted:
                    logs.append(math.log(latency / predicted))
        return math.exp(statistics.fmean(logs)) if logs else 1.0

    def _predicted_ttft(self, mapping: ParallelMapping) -> Callable[[PrefillPoint | DecodePoint], float | None]:
        forecast, isl = self.forecasts.get(mapping), self.record.request.isl

        def ttft(point: PrefillPoint | DecodePoint) -> float | None:
            if forecast is None or point.prompt_tokens != isl:
                return None
            return forecast.prefill_point(PrefillLoad(isl, 1, mapping.attention_dp)).ttft

        return ttft

    def _predicted_itl(self, mapping: ParallelMapping) -> Callable[[PrefillPoint | DecodePoint], float | None]:
        forecast = self.forecasts.get(mapping)

        def itl(point: PrefillPoint | DecodePoint) -> float | None:
            if forecast is None or not isinstance(point, DecodePoint):
                return None
            load = DecodeLoad(point.prompt_tokens, point.output_tokens, point.concurrency)
            return forecast.decode_point(load, forecast.kv_tokens).itl

        return itl

    def _measured(self, selection: WorkerSelection, phase: Phase) -> PhaseFigures | None:
        if phase == "prefill":
            prefill = selection.prefill_pick
            return PhaseFigures(prefill.point.ttft, prefill.point.throughput_per_gpu) if prefill else None
        decode = selection.decode_pick
        return PhaseFigures(decode.point.itl, decode.point.throughput_per_gpu) if decode else None

    def _target(self, phase: Phase) -> float:
        return self.record.request.ttft if phase == "prefill" else self.record.request.itl
