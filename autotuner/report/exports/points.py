"""The load points that exports hold: every one of every launch that gave trusted figures, with its figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autotuner.core import LoadPointResult, Trial
from autotuner.report.run_view import RunView
from autotuner.scoring.objective import output_throughput_per_gpu
from autotuner.scoring.pool import UNTRUSTED_VERDICTS


@dataclass(frozen=True)
class ExportedFigure:
    """A figure in `unit`, with its 95% interval within the launch where that is known."""

    name: str
    unit: str
    value: float
    interval: tuple[float, float] | None
    higher_is_better: bool


@dataclass(frozen=True)
class ExportedPoint:
    """One load point of one candidate: of its latest trusted launch."""

    trial: Trial
    result: LoadPointResult
    candidate: str

    @property
    def figures(self) -> Iterator[ExportedFigure]:
        """Throughputs in tokens/s per GPU and requests/s, median latencies in seconds, attainment as a share."""
        metrics, gpus = self.result.metrics, self.trial.candidate.gpus
        per_gpu = output_throughput_per_gpu(metrics, gpus)
        if per_gpu:
            limits = metrics.intervals.get("output_throughput")
            interval = (limits[0] / gpus, limits[1] / gpus) if limits else None
            yield ExportedFigure("output_throughput_per_gpu", "tokens/s", per_gpu, interval, True)
        yield ExportedFigure("goodput", "requests/s", metrics.goodput, metrics.intervals.get("goodput"), True)
        for name in ("ttft", "tpot", "e2e"):
            distribution = getattr(metrics, name)
            if distribution is not None:
                low, high = distribution.intervals.get("p50", (None, None))
                interval = (low, high) if low is not None and high is not None else None
                yield ExportedFigure(f"{name}_p50", "s", distribution.p50, interval, False)
        if metrics.attainment is not None:
            share = metrics.attainment
            yield ExportedFigure("attainment", "share", share.value, (share.low, share.high), True)


def exported_points(view: RunView) -> list[ExportedPoint]:
    """The latest trusted result of each candidate at each load point."""
    points: dict[tuple[str, str], ExportedPoint] = {}
    for trial in view.trials:
        name = view.names.short_name(trial.candidate)
        for point, result in trial.measurement.latest_results.items():
            if result.verdict not in UNTRUSTED_VERDICTS:
                points[trial.candidate.key, str(point)] = ExportedPoint(trial, result, name)
    return list(points.values())
