"""A real SGLang for CPU as setup_sglang.py leaves it: its environment, and evaluations of one candidate on it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from autotuner.core import Candidate, Measurement, Observer, Value, ignore_progress
from autotuner.deploy import render
from autotuner.engines import engine
from autotuner.evaluate.measured import MeasuredEvaluator
from autotuner.experiment import Deployment, Experiment, Model, Runtime
from autotuner.launchers import launcher
from autotuner.search.launch import ListedLoads
from tests.real.short_load import SHORT_LOAD

ENVIRONMENT = {"SGLANG_USE_CPU_ENGINE": "1", "HF_HUB_OFFLINE": "1"}

SMALL_CACHE = ("--max-total-tokens", "65536")
"""Without it SGLang fills 0.7 of the host's memory with zeros, which takes most of a minute."""


def measure_sglang(
    executable: Path,
    model: str,
    folder: Path,
    *extra_args: str,
    env: dict[str, str] | None = None,
    observe: Observer = ignore_progress,
    **parameters: Value,
) -> Measurement:
    """Two short load points of one candidate on a server that is started for them, its files in `folder`."""
    runtime = Runtime(executable=str(executable), extra_args=extra_args, env={**ENVIRONMENT, **(env or {})})
    fields: dict[str, Any] = {
        "task_name": "real",
        "model": Model(id_or_path=model),
        "base_runtime": "sglang",
        "runtime": runtime,
        "deployment": Deployment(mode="process"),
        "parameters": {},
        "benchmark": SHORT_LOAD,
    }
    evaluator = MeasuredEvaluator(
        Experiment(**fields), engine("sglang"), launcher("process"), partial(render, format="shell"), observe
    )
    return evaluator.evaluate(Candidate("sglang", parameters), ListedLoads(evaluator.workload), folder)
