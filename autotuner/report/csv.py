"""Every load point of every trial as one flat CSV row, for spreadsheets and data frames."""

from __future__ import annotations

from typing import Any

from autotuner.core import LoadPointResult, Trial
from autotuner.escaping import for_csv
from autotuner.experiment import Slo
from autotuner.report.formatting import format_setting
from autotuner.report.near_misses import near_terms
from autotuner.report.record import per_gpu_figures
from autotuner.report.run_view import RunView

_LATENCIES = ("ttft", "ttfo", "tpot", "itl", "e2e")
_STATISTICS = ("mean", "p50", "p90", "p99")


def csv_text(view: RunView) -> str:
    """CSV in seconds, tokens/s and requests/s, empty for missing values; a failed trial has at least one row.

    `rank` and `candidate` (the number of its first trial) are the same for all launches of a candidate.
    """
    import pandas as pd

    standings = {standing.candidate.key: standing for standing in view.ranking.standings}
    parameters = list(dict.fromkeys(name for trial in view.trials for name in trial.candidate.parameters))
    rows: list[dict[str, Any]] = []
    for trial in view.trials:
        failure = trial.measurement.failure
        standing = standings.get(trial.candidate.key)
        trial_cells = {
            "rank": standing.rank if standing else None,
            "candidate": standing.trial_number if standing else None,
            "trial": trial.number,
            "purpose": trial.purpose,
            "runtime": trial.candidate.runtime,
            **{name: format_setting(value) for name, value in trial.candidate.parameters.items()},
            "gpus": trial.candidate.gpus,
            "failure": failure.kind.value if failure else None,
            "source": trial.measurement.source,
        }
        rows += [trial_cells | _trial_row(result, trial, view) for result in trial.results] or [trial_cells]
    gpu_columns = _GPU_USE_COLUMNS if any(set(_GPU_USE_COLUMNS) & set(row) for row in rows) else ()
    key_columns = ("rank", "candidate", "trial", "purpose", "runtime")
    columns = [*key_columns, *parameters, "gpus", "failure", "source", *LOAD_POINT_COLUMNS, *_RUN_COLUMNS, *gpu_columns]
    rows = [{name: for_csv(value) for name, value in row.items()} for row in rows]
    return pd.DataFrame(rows, columns=columns, dtype=object).to_csv(index=False, lineterminator="\n")


def _trial_row(result: LoadPointResult, trial: Trial, view: RunView) -> dict[str, Any]:
    return {
        **load_point_row(result, view.experiment.slo),
        **per_gpu_figures(result, trial.candidate.gpus, view.experiment.hardware.price_per_gpu_hour),
        "score": result.score.value if result.score else None,
        "pareto": str(view.is_on_frontier(trial, result)).lower(),
        **_gpu_use_row(result),
    }


def load_point_row(result: LoadPointResult, slo: Slo) -> dict[str, Any]:
    """One load point as a flat row; `near` names the SLO terms met only within their warning band."""
    metrics, share = result.metrics, result.metrics.attainment
    row: dict[str, Any] = {
        "scenario": result.load_point.scenario,
        "concurrency": result.load_point.concurrency,
        "rate": result.load_point.rate,
        "source": result.source,
        "verdict": result.verdict.value,
        "near": " ".join(term.term for term in near_terms(result, slo)),
        "n": metrics.requests,
        "errors": sum(metrics.errors.values()),
        "output_throughput": metrics.output_throughput,
        "total_throughput": metrics.throughput,
        "request_throughput": metrics.request_throughput,
        "goodput": metrics.goodput,
        "interactivity": metrics.interactivity,
        "attainment": share.value if share else None,
        "attainment_low": share.low if share else None,
        "attainment_high": share.high if share else None,
    }
    for name in _LATENCIES:
        distribution = getattr(metrics, name)
        for statistic in _STATISTICS:
            row[f"{name}_{statistic}"] = getattr(distribution, statistic) if distribution else None
    return row


def _gpu_use_row(result: LoadPointResult) -> dict[str, Any]:
    use = result.gpu_use
    if use is None:
        return {}
    gpu_use_values = (
        use.mean_watts,
        use.max_watts,
        use.utilisation,
        use.memory_used,
        use.energy,
        result.joules_per_token,
    )
    return dict(zip(_GPU_USE_COLUMNS, gpu_use_values, strict=True))


_RUN_COLUMNS = (
    "output_throughput_per_gpu",
    "total_throughput_per_gpu",
    "gpu_seconds_per_million_output_tokens",
    "cost_per_million_output_tokens",
    "score",
    "pareto",
)
"""Columns that need an objective or the number of GPUs."""

_GPU_USE_COLUMNS = ("watts_mean", "watts_max", "gpu_utilisation", "gpu_memory_used", "energy", "joules_per_token")
"""Columns of a run with metered GPUs: W, W, fraction, bytes, J, J."""

LOAD_POINT_COLUMNS = (
    "scenario",
    "concurrency",
    "rate",
    "verdict",
    "near",
    "n",
    "errors",
    "output_throughput",
    "total_throughput",
    "request_throughput",
    "goodput",
    "interactivity",
    "attainment",
    "attainment_low",
    "attainment_high",
    *(f"{name}_{statistic}" for name in _LATENCIES for statistic in _STATISTICS),
)
"""Columns of `load_point_row`, in order."""
