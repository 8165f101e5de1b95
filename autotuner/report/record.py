"""A run's result as JSON-ready data: seconds, tokens per second, requests per second."""

from __future__ import annotations

import dataclasses
from typing import Any

from autotuner.core import Distribution, LoadPointResult, Metrics, Share, Trial
from autotuner.experiment import Slo
from autotuner.report.near_misses import near_terms
from autotuner.report.objective_text import objective_meaning
from autotuner.report.refused import refusal_records
from autotuner.report.run_view import RunView
from autotuner.report.search_summary import search_record
from autotuner.runs.store import TRIALS_FILE
from autotuner.runs.summaries import MAX_COMPLETE_LOAD_POINTS
from autotuner.scoring.objective import COST, OBJECTIVES, THROUGHPUT, output_throughput_per_gpu
from autotuner.scoring.rank import Standing

_STATISTICS = ("mean", "sd", "min", "p25", "p50", "p75", "p90", "p95", "p99", "max", "n")
_DISTRIBUTIONS = ("ttft", "ttfo", "tpot", "itl", "chunk_gap", "e2e", "ttft_from_schedule", "e2e_from_schedule")
_LOAD_POINT_KEYS = ("scenario", "rate", "concurrency", "verdict", "near")
_POOLED_MEANS = ("ttft", "tpot", "e2e")
_POOLED_RATES = (
    "output_throughput",
    "total_throughput",
    "request_throughput",
    "goodput",
    "interactivity",
    "output_throughput_per_gpu",
    "total_throughput_per_gpu",
    "gpu_seconds_per_million_output_tokens",
    "cost_per_million_output_tokens",
)
MAX_DETAILED_LOAD_POINTS = MAX_COMPLETE_LOAD_POINTS
"""Load points of all trials together up to which each has all its figures, about 15 kB."""

_RATES = ("request_throughput", "goodput", "token_goodput", "interactivity")


def run_record(view: RunView) -> dict[str, Any]:
    """The ranking, all trials with their load points, and refused candidates; None for missing metrics or bounds.

    Of a run whose record `is_brief`, load points have their main figures, and `details` names the file with all.
    """
    ranking, experiment, brief = view.ranking, view.experiment, is_brief(view)
    objective = OBJECTIVES[ranking.objective]
    return {
        "task_name": experiment.task_name,
        "model": experiment.model.id_or_path,
        "runtime": experiment.base_runtime,
        "objective": {
            "name": objective.name,
            "label": objective.label,
            "meaning": objective_meaning(experiment),
            "unit": ranking.unit,
            "better": "lower" if objective.direction == "min" else "higher",
        },
        "sources": list(ranking.sources),
        "winner": ranking.winner.trial_number if ranking.winner else None,
        "baseline": ranking.baseline_trial_number,
        "ranking": [
            {**_standing_record(standing), "figures": [] if brief else _pooled_load_points(standing, view)}
            for standing in ranking.standings
        ],
        "trials": [_brief_trial_record(trial, view) if brief else _trial_record(trial, view) for trial in view.trials],
        "details": TRIALS_FILE if brief else None,
        "refused": refusal_records(view.refused),
        "search": search_record(view),
        "forecasts": [dataclasses.asdict(forecast) for forecast in view.forecasts],
        "environments": [dict(host) for host in view.environments],
    }


def _trial_record(trial: Trial, view: RunView) -> dict[str, Any]:
    """One trial with its load points and failure."""
    measurement = trial.measurement
    return {
        "number": trial.number,
        "candidate": {"runtime": trial.candidate.runtime, "parameters": dict(trial.candidate.parameters)},
        "gpus": trial.candidate.gpus,
        "purpose": trial.purpose,
        "parallel_trials": list(trial.parallel_trials),
        "source": measurement.source,
        "failure": failure_record(trial),
        "timings": dict(measurement.timings),
        "server": dict(measurement.server),
        "capacities": [dataclasses.asdict(capacity) for capacity in measurement.outcome.capacities],
        "gave_up": measurement.outcome.gave_up,
        "command": list(measurement.spec.argv) if measurement.spec else None,
        "load_points": [_trial_load_point(result, trial, view) for result in measurement.load_points],
    }


def is_brief(view: RunView) -> bool:
    """Whether the run has so many load points that its record has only the main figures of each."""
    return sum(len(trial.results) for trial in view.trials) > MAX_DETAILED_LOAD_POINTS


def _brief_trial_record(trial: Trial, view: RunView) -> dict[str, Any]:
    """One trial with the main figures of its load points; the rest is in its line of trials.jsonl."""
    return {
        "number": trial.number,
        "purpose": trial.purpose,
        "candidate": {"runtime": trial.candidate.runtime, "parameters": dict(trial.candidate.parameters)},
        "source": trial.measurement.source,
        "failure": failure_record(trial),
        "load_points": [_brief_load_point(result, trial, view) for result in trial.results],
    }


def _brief_load_point(result: LoadPointResult, trial: Trial, view: RunView) -> dict[str, Any]:
    """Load, verdict, means, rates and attainment, with four significant digits."""
    metrics, point = result.metrics, result.load_point
    load = {"rate": point.rate} if point.concurrency is None else {"concurrency": point.concurrency}
    means = {f"{name}_mean": getattr(metrics, name) and getattr(metrics, name).mean for name in _POOLED_MEANS}
    rates = {"output_throughput": metrics.output_throughput, "goodput": metrics.goodput}
    share = metrics.attainment.value if metrics.attainment else None
    figures = {**means, **rates, "attainment": share}
    return {
        "scenario": point.scenario,
        **load,
        "verdict": result.verdict.value,
        "requests": metrics.requests,
        **{name: None if value is None else float(f"{value:.4g}") for name, value in figures.items()},
        "pareto": view.is_on_frontier(trial, result),
    }


def _pooled_load_points(standing: Standing, view: RunView) -> list[dict[str, Any]]:
    """Each load point of a candidate pooled over its launches: means, total requests, pooled attainment."""
    candidate, experiment = view.pooled[standing.trial_number], view.experiment
    trial = candidate.trial
    records = []
    for result in trial.results:
        point = load_point_record(result, experiment.slo)
        metrics = point["metrics"] | per_gpu_figures(
            result, trial.candidate.gpus, experiment.hardware.price_per_gpu_hour
        )
        rates = {name: metrics[name] for name in (*_POOLED_RATES, "attainment")}
        means = {name: metrics[name] and metrics[name]["mean"] for name in _POOLED_MEANS}
        records.append(
            {
                **{name: point[name] for name in _LOAD_POINT_KEYS if name in point},
                "launches": candidate.launch_counts.get(result.load_point, 1),
                "requests": metrics["requests"],
                **{f"{name}_mean": value for name, value in means.items()},
                **rates,
                "pareto": view.is_on_frontier(trial, result),
            }
        )
    return records


def _trial_load_point(result: LoadPointResult, trial: Trial, view: RunView) -> dict[str, Any]:
    """A load point record with per-GPU metrics, score and frontier membership."""
    entry = load_point_record(result, view.experiment.slo)
    price = view.experiment.hardware.price_per_gpu_hour
    entry["metrics"] |= per_gpu_figures(result, trial.candidate.gpus, price)
    score = dataclasses.asdict(result.score) if result.score else None
    return {**entry, "score": score, "pareto": view.is_on_frontier(trial, result)}


def per_gpu_figures(result: LoadPointResult, gpus: int, price: float | None) -> dict[str, float | None]:
    """Metrics that depend on the number of GPUs: tokens/s per GPU, and cost of a million output tokens."""
    return {
        "output_throughput_per_gpu": output_throughput_per_gpu(result.metrics, gpus),
        "total_throughput_per_gpu": THROUGHPUT.value(result.metrics, gpus),
        "gpu_seconds_per_million_output_tokens": COST.value(result.metrics, gpus, None),
        "cost_per_million_output_tokens": None if price is None else COST.value(result.metrics, gpus, price),
    }


def load_point_record(result: LoadPointResult, slo: Slo) -> dict[str, Any]:
    """One load point: the load, metrics, validity checks, verdict, and the targets met only within the warning band."""
    point = result.load_point
    load = {"rate": point.rate} if point.concurrency is None else {"concurrency": point.concurrency}
    return {
        "scenario": point.scenario,
        **load,
        "source": result.source,
        "verdict": result.verdict.value,
        "near": [term.term for term in near_terms(result, slo)],
        "metrics": _metrics_record(result.metrics),
        "validity": {
            check.name: {"value": check.value, "limit": check.limit, "ok": check.ok} for check in result.validity
        },
        "error_messages": dict(result.error_messages),
        **_gpu_use_record(result),
    }


def _gpu_use_record(result: LoadPointResult) -> dict[str, Any]:
    """GPU power, utilisation and memory; empty if the GPUs were not metered."""
    if result.gpu_use is None:
        return {}
    return {"gpu_use": {**dataclasses.asdict(result.gpu_use), "joules_per_token": result.joules_per_token}}


def _metrics_record(metrics: Metrics) -> dict[str, Any]:
    return {
        "requests": metrics.requests,
        **{name: _distribution_record(getattr(metrics, name)) for name in _DISTRIBUTIONS},
        "output_throughput": metrics.output_throughput,
        "total_throughput": metrics.throughput,
        **{name: getattr(metrics, name) for name in _RATES},
        "intervals": {name: list(interval) for name, interval in metrics.intervals.items()},
        "attainment": _share_record(metrics.attainment),
        "errors": dict(metrics.errors),
        "token_counts": dict(metrics.token_counts),
    }


def _distribution_record(distribution: Distribution | None) -> dict[str, Any] | None:
    if distribution is None:
        return None
    return {
        **{name: getattr(distribution, name) for name in _STATISTICS},
        **{f"adj_{name}": value for name, value in distribution.adjusted.items()},
        "intervals": {name: list(interval) for name, interval in distribution.intervals.items()},
    }


def _share_record(share: Share | None) -> dict[str, Any] | None:
    return dataclasses.asdict(share) if share else None


def _standing_record(standing: Standing) -> dict[str, Any]:
    return {
        "rank": standing.rank,
        "trial": standing.trial_number,
        "candidate": {"runtime": standing.candidate.runtime, "parameters": dict(standing.candidate.parameters)},
        "source": standing.source,
        "verdict": standing.verdict.value if standing.verdict else None,
        "failure": standing.failure.kind.value if standing.failure else None,
        "reason": standing.reason,
        "remedy": standing.failure.remedy if standing.failure else None,
        "load_points": [str(point) for point in standing.load_points],
        "value": standing.value,
        "score": standing.score,
        "gain": standing.gain,
        "attainment": _share_record(standing.attainment),
        "interval": list(standing.interval) if standing.interval else None,
        "tied": standing.is_tied,
        "launches": standing.launch_count,
        "confirmations": standing.confirmation_count,
        "fresh_value": standing.confirmation_value,
    }


def failure_record(trial: Trial) -> dict[str, str] | None:
    """The class, words and remedy of a trial's failure; None if it had none."""
    failure = trial.measurement.failure
    if failure is None:
        return None
    return {"kind": failure.kind.value, "said": failure.message, "remedy": failure.remedy}
