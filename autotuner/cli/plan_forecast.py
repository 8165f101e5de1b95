"""What the closed form expects of each candidate of a plan, for `--dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autotuner.cli.predict_point import duration
from autotuner.report.formatting import number
from autotuner.report.table import OUTPUT_PER_GPU, shows_cost
from autotuner.scoring.objective import cost_unit

if TYPE_CHECKING:
    from autotuner.core import Candidate, LoadPoint
    from autotuner.experiment import Experiment
    from autotuner.forecaster import Foresight
    from autotuner.predict.predict import Prediction

COLUMNS = ("TTFT", "TPOT", OUTPUT_PER_GPU)


def titles(experiment: Experiment, candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """The columns of a prediction: what tokens cost is among them where it sets candidates apart."""
    shown = shows_cost(experiment, (candidate.gpus for candidate in candidates))
    return (*COLUMNS, cost_unit(experiment.hardware.price_per_gpu_hour)) if shown else COLUMNS


def foreseen(foresight: Foresight, candidates: Sequence[Candidate], points: Sequence[LoadPoint]) -> list[Any]:
    """Every load point of every candidate for JSON: seconds and output tokens/s; None where nothing is known."""
    return [[_plain(foresight, candidate, point) for point in points] for candidate in candidates]


def _plain(foresight: Foresight, candidate: Candidate, point: LoadPoint) -> dict[str, Any] | None:
    found = foresight.predict(candidate, point)
    if found is None:
        return None
    price = foresight.experiment.hardware.price_per_gpu_hour
    return {
        "load_point": str(point),
        "ttft": found.ttft,
        "ttft_interval": list(found.ttft_interval),
        "tpot": found.tpot,
        "tpot_interval": list(found.tpot_interval),
        "output_throughput_per_gpu": found.throughput / found.gpus,
        "gpu_seconds_per_million_output_tokens": _cost(found, None),
        "cost_per_million_output_tokens": None if price is None else _cost(found, price),
        "source": "predicted",
    }


def columns(foresight: Foresight, candidate: Candidate, point: LoadPoint) -> dict[str, str]:
    """The cells of one candidate at one load point; empty where nothing is known."""
    found = foresight.predict(candidate, point)
    if found is None:
        return {}
    price = foresight.experiment.hardware.price_per_gpu_hour
    cells = (duration(found.ttft), duration(found.tpot), number(found.throughput / found.gpus))
    return {**dict(zip(COLUMNS, cells, strict=True)), cost_unit(price): number(_cost(found, price))}


def _cost(prediction: Prediction, price: float | None) -> float | None:
    """What a million output tokens cost: currency, or GPU-seconds where no price is known."""
    if not prediction.throughput:
        return None
    gpu_seconds = prediction.gpus * 1e6 / prediction.throughput
    return gpu_seconds if price is None else gpu_seconds * price / 3600
