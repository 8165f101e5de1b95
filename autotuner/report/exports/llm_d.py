"""llm-d's benchmark report, version 0.2: one file for each load point of each candidate.

The format has no place for intervals, attainment and verdicts: they are in `native.config` of the load.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from autotuner import __version__
from autotuner.core import Distribution
from autotuner.report.exports.points import ExportedPoint, exported_points
from autotuner.report.run_view import RunView
from autotuner.workload.scenarios import FixedLengths, NormalLengths, TraceReplay, UniformLengths, parse

VERSION = "0.2"
_STATISTICS = ("mean", "min", "p25", "p50", "p75", "p90", "p95", "p99", "max")


def llm_d_files(view: RunView, run_name: str) -> dict[str, str]:
    """Reports in YAML, named after trial and load point."""
    import yaml

    files = {}
    for point in exported_points(view):
        load = re.sub(r"[^A-Za-z0-9.]+", "-", str(point.result.load_point)).strip("-")
        report = _report(view, run_name, point)
        files[f"trial-{point.trial.number:03d}-{load}.yaml"] = yaml.safe_dump(report, sort_keys=False)
    return files


def _report(view: RunView, run_name: str, point: ExportedPoint) -> dict[str, Any]:
    trial, result, metrics = point.trial, point.result, point.result.metrics
    started, ended = (datetime.fromtimestamp(seconds, UTC).isoformat() for seconds in (trial.started, trial.ended))
    input_rate = metrics.throughput - metrics.output_throughput
    return {
        "version": VERSION,
        "run": {
            "uid": f"{run_name}/{trial.number}/{result.load_point}",
            "eid": run_name,
            "time": {"start": started, "end": ended, "duration": f"PT{max(0.0, trial.ended - trial.started):.3f}S"},
            "description": f"{view.experiment.task_name}: {result.source} by autotune",
            "keywords": [result.source, str(result.verdict)],
        },
        "scenario": {"stack": [_engine(view, point)], "load": _load(view, point)},
        "results": {
            "request_performance": {
                "aggregate": {
                    "requests": {"total": metrics.requests, "failures": sum(metrics.errors.values())},
                    "latency": {
                        name: _statistics(distribution, units)
                        for name, distribution, units in (
                            ("time_to_first_token", metrics.ttft, "s"),
                            ("time_per_output_token", metrics.tpot, "s/token"),
                            ("inter_token_latency", metrics.itl, "s/token"),
                            ("request_latency", metrics.e2e, "s"),
                        )
                        if distribution is not None
                    },
                    "throughput": {
                        "input_token_rate": {"units": "tokens/s", "mean": input_rate},
                        "output_token_rate": {"units": "tokens/s", "mean": metrics.output_throughput},
                        "total_token_rate": {"units": "tokens/s", "mean": metrics.throughput},
                        "request_rate": {"units": "queries/s", "mean": metrics.request_throughput},
                    },
                }
            }
        },
    }


def _statistics(distribution: Distribution, units: str) -> dict[str, Any]:
    values = {name: getattr(distribution, name) for name in _STATISTICS}
    return {"units": units, **values, "stddev": distribution.sd}


def _engine(view: RunView, point: ExportedPoint) -> dict[str, Any]:
    trial, experiment = point.trial, view.experiment
    sizes = trial.candidate.parallelism
    spec = trial.measurement.spec
    gpu = experiment.simulate.gpu if point.result.source == "simulated" else experiment.hardware.gpu_type
    return {
        "metadata": {"label": trial.candidate.runtime, "cfg_id": trial.candidate.key},
        "standardized": {
            "kind": "inference_engine",
            "tool": trial.candidate.runtime,
            "tool_version": str(trial.measurement.server.get("version", "unknown")),
            "role": "replica",
            "replicas": 1,
            "model": {"name": experiment.model.id_or_path},
            "accelerator": {
                "model": gpu or "unknown",
                "count": trial.candidate.gpus,
                "parallelism": {"tp": sizes.tp, "pp": sizes.pp, "dp": sizes.dp, "ep": sizes.ep},
            },
        },
        "native": {
            "args": dict(trial.candidate.parameters),
            "config": {"argv": list(spec.argv)} if spec else None,
        },
    }


def _load(view: RunView, point: ExportedPoint) -> dict[str, Any]:
    result = point.result
    load_point, metrics = result.load_point, result.metrics
    scenario = parse(load_point.scenario)
    prompt, output = scenario.mean_lengths
    kinds = ((FixedLengths, "fixed"), (NormalLengths, "gaussian"), (UniformLengths, "uniform"))
    distribution = next((name for kind, name in kinds if isinstance(scenario, kind)), "other")
    rate = {"rate_qps": load_point.rate} if load_point.rate is not None else {"concurrency": load_point.concurrency}
    return {
        "metadata": {"description": str(load_point)},
        "standardized": {
            "tool": "autotune",
            "tool_version": __version__,
            "source": "sampled" if isinstance(scenario, TraceReplay) else "random",
            "input_seq_len": {"distribution": distribution, "value": prompt},
            "output_seq_len": {"distribution": distribution, "value": output},
            **rate,
        },
        "native": {
            "config": {
                "source": result.source,
                "verdict": str(result.verdict),
                "attainment": asdict(metrics.attainment) if metrics.attainment else None,
                "goodput": metrics.goodput,
                "intervals": {
                    name: dict(distribution.intervals)
                    for name in ("ttft", "tpot", "itl", "e2e")
                    if (distribution := getattr(metrics, name)) is not None
                },
                "endpoint": view.experiment.benchmark.endpoint,
                "seed": view.experiment.benchmark.seed,
            }
        },
    }
