"""What the closed form expects of each candidate of a plan, for `--dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autotuner.cli.predict_point import format_latency
from autotuner.report.formatting import format_number
from autotuner.report.table import OUTPUT_PER_GPU_TITLE, shows_cost
from autotuner.scoring.objective import output_token_cost_unit

if TYPE_CHECKING:
    from autotuner.core import Candidate, LoadPoint
    from autotuner.experiment import Experiment
    from autotuner.forecaster import Forecaster
    from autotuner.predict.predict import Prediction

FORECAST_COLUMNS = ("TTFT", "TPOT", OUTPUT_PER_GPU_TITLE)


def column_titles(experiment: Experiment, candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """The columns of a prediction: what tokens cost is among them where it sets candidates apart."""
    shown = shows_cost(experiment, (candidate.gpus for candidate in candidates))
    return (
        (*FORECAST_COLUMNS, output_token_cost_unit(experiment.hardware.price_per_gpu_hour))
        if shown
        else FORECAST_COLUMNS
    )


def forecasts_json(
    forecaster: Forecaster, candidates: Sequence[Candidate], load_points: Sequence[LoadPoint]
) -> list[Any]:
    """Every load point of every candidate for JSON: seconds and output tokens/s; None where nothing is known."""
    return [[_forecast_json(forecaster, candidate, point) for point in load_points] for candidate in candidates]


def _forecast_json(forecaster: Forecaster, candidate: Candidate, load_point: LoadPoint) -> dict[str, Any] | None:
    found = forecaster.predict(candidate, load_point)
    if found is None:
        return None
    price = forecaster.experiment.hardware.price_per_gpu_hour
    return {
        "load_point": str(load_point),
        "ttft": found.ttft,
        "ttft_interval": list(found.ttft_interval),
        "tpot": found.tpot,
        "tpot_interval": list(found.tpot_interval),
        "output_throughput_per_gpu": found.throughput / found.gpus,
        "gpu_seconds_per_million_output_tokens": _cost_per_million_tokens(found, None),
        "cost_per_million_output_tokens": None if price is None else _cost_per_million_tokens(found, price),
        "source": "predicted",
    }


def forecast_cells(forecaster: Forecaster, candidate: Candidate, load_point: LoadPoint) -> dict[str, str]:
    """The cells of one candidate at one load point; empty where nothing is known."""
    found = forecaster.predict(candidate, load_point)
    if found is None:
        return {}
    price = forecaster.experiment.hardware.price_per_gpu_hour
    cells = (format_latency(found.ttft), format_latency(found.tpot), format_number(found.throughput / found.gpus))
    return {
        **dict(zip(FORECAST_COLUMNS, cells, strict=True)),
        output_token_cost_unit(price): format_number(_cost_per_million_tokens(found, price)),
    }


def _cost_per_million_tokens(prediction: Prediction, price: float | None) -> float | None:
    """What a million output tokens cost: currency, or GPU-seconds where no price is known."""
    if not prediction.throughput:
        return None
    gpu_seconds = prediction.gpus * 1e6 / prediction.throughput
    return gpu_seconds if price is None else gpu_seconds * price / 3600
