"""Predicted latency, throughput and cost of each planned candidate, for `--dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autotuner.cli.predict_point import format_latency
from autotuner.report.formatting import format_number
from autotuner.report.table import OUTPUT_PER_GPU_TITLE, shows_cost
from autotuner.scoring.objective import COST

if TYPE_CHECKING:
    from autotuner.core import Candidate, LoadPoint
    from autotuner.experiment import Experiment
    from autotuner.forecaster import Forecaster
    from autotuner.predict.predict import Prediction

FORECAST_COLUMNS = ("TTFT", "TPOT", OUTPUT_PER_GPU_TITLE)


def column_titles(experiment: Experiment, candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """Titles of the forecast columns, with token cost if it differs between candidates."""
    has_cost = shows_cost(experiment, (candidate.gpus for candidate in candidates))
    return (*FORECAST_COLUMNS, COST.unit(experiment.hardware.price_per_gpu_hour)) if has_cost else FORECAST_COLUMNS


def forecasts_json(
    forecaster: Forecaster, candidates: Sequence[Candidate], load_points: Sequence[LoadPoint]
) -> list[Any]:
    """Forecasts per candidate and load point for JSON, in seconds and output tokens/s; None without a prediction."""
    return [[_forecast_json(forecaster, candidate, point) for point in load_points] for candidate in candidates]


def _forecast_json(forecaster: Forecaster, candidate: Candidate, load_point: LoadPoint) -> dict[str, Any] | None:
    prediction = forecaster.predict(candidate, load_point)
    if prediction is None:
        return None
    price = forecaster.experiment.hardware.price_per_gpu_hour
    return {
        "load_point": str(load_point),
        "ttft": prediction.ttft,
        "ttft_interval": list(prediction.ttft_interval),
        "tpot": prediction.tpot,
        "tpot_interval": list(prediction.tpot_interval),
        "output_throughput_per_gpu": prediction.throughput / prediction.gpus,
        "gpu_seconds_per_million_output_tokens": _cost_per_million_tokens(prediction, None),
        "cost_per_million_output_tokens": None if price is None else _cost_per_million_tokens(prediction, price),
        "source": "predicted",
    }


def forecast_cells(forecaster: Forecaster, candidate: Candidate, load_point: LoadPoint) -> dict[str, str]:
    """Table cells of a candidate at one load point; empty without a prediction."""
    prediction = forecaster.predict(candidate, load_point)
    if prediction is None:
        return {}
    price = forecaster.experiment.hardware.price_per_gpu_hour
    cells = (
        format_latency(prediction.ttft),
        format_latency(prediction.tpot),
        format_number(prediction.throughput / prediction.gpus),
    )
    return {
        **dict(zip(FORECAST_COLUMNS, cells, strict=True)),
        COST.unit(price): format_number(_cost_per_million_tokens(prediction, price)),
    }


def _cost_per_million_tokens(prediction: Prediction, price: float | None) -> float | None:
    return COST.of_metric(prediction.throughput, prediction.gpus, price) if prediction.throughput else None
