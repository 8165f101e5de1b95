"""Factories: request records, metrics, trials and experiments with round figures."""

from types import SimpleNamespace
from typing import Any

import pytest

from autotuner.core import (
    Candidate,
    Distribution,
    Failure,
    FailureKind,
    LoadPoint,
    LoadPointResult,
    Measurement,
    Metrics,
    Observation,
    RequestRecord,
    Share,
    Trial,
)
from autotuner.experiment import Experiment
from autotuner.scoring.intervals import wilson_share


def record(sent=0.0, ttft=0.1, gap=0.01, tokens=11, **changes) -> RequestRecord:
    """A request sent at `sent`: first token after `ttft`, then one token every `gap`."""
    times = tuple(sent + ttft + gap * i for i in range(tokens))
    fields = {
        "index": 0,
        "scheduled": sent,
        "sent": sent,
        "finished": times[-1] if times else sent,
        "chunk_times": times,
        "chunk_tokens": (1,) * tokens,
        "requested_prompt": 100,
        "requested_output": tokens,
        "prompt_tokens": 100,
        "output_tokens": tokens,
        "finish_reason": "length",
    }
    return RequestRecord(**(fields | changes))


def failed(sent=0.0, error="timeout", seconds=1.0, **changes) -> RequestRecord:
    """A request that ended in an error and brought nothing."""
    empty = {"chunk_times": (), "chunk_tokens": (), "output_tokens": None, "prompt_tokens": None}
    return record(sent, error=error, finished=sent + seconds, **(empty | changes))


def observation(records, window=(0.0, 10.0), point=None, **changes) -> Observation:
    """A load point's records; one stream of D(100,11) where nothing else is said."""
    fields: dict[str, Any] = {"load_point": point or LoadPoint("D(100,11)", concurrency=1), "loop_lag_p99": 0.001}
    return Observation(records=tuple(records), window=window, **(fields | changes))


def constant(value, n=100, **changes) -> Distribution:
    """`n` equal samples."""
    names = ("mean", "min", "p25", "p50", "p75", "p90", "p95", "p99", "max")
    intervals = dict.fromkeys(("mean", "p50", "p90", "p95", "p99"), (value, value))
    return Distribution(n=n, sd=0.0, **(dict.fromkeys(names, value) | {"intervals": intervals} | changes))


def metrics(e2e=1.0, ttft=0.1, tpot=0.01, throughput=1000.0, good=100, n=100, **changes) -> Metrics:
    """A load point in which every request was the same."""
    fields = {
        "requests": n,
        "ttft": constant(ttft, n),
        "ttfo": constant(ttft, n),
        "tpot": constant(tpot, n),
        "itl": constant(tpot, n * 10),
        "chunk_gap": constant(tpot, n * 10),
        "e2e": constant(e2e, n),
        "interactivity": 1 / tpot,
        "output_throughput": throughput / 2,
        "throughput": throughput,
        "request_throughput": throughput / 200,
        "goodput": throughput / 200 * good / n,
        "token_goodput": throughput / 2 * good / n,
        "attainment": wilson_share(good, n),
        "errors": {},
    }
    return Metrics(**(fields | changes))


def result(concurrency=1, validity=(), source="measured", rate=None, **figures) -> LoadPointResult:
    """A load point of D(100,100) with the figures of `metrics`."""
    point = LoadPoint("D(100,100)", rate=rate) if rate else LoadPoint("D(100,100)", concurrency=concurrency)
    return LoadPointResult(point, source, metrics(**figures), tuple(validity))


def trial(number, *results, parameters=None, failure=None, source="measured", purpose="search") -> Trial:
    """A trial with these load points; `failure` is a FailureKind."""
    ended = Failure(failure, "the engine's last words", "do this") if failure else None
    candidate = Candidate("vllm", parameters or {"tp-size": 1, "max-running-requests": number})
    return Trial(number, candidate, Measurement(source, results, ended), 0.0, 1.0, purpose)


def experiment(objective="minimize_latency", concurrency=(1,), slo=None, price=None, **benchmark) -> Experiment:
    """An experiment over D(100,100)."""
    return Experiment.model_validate(
        {
            "task_name": "t",
            "model": {"id_or_path": "m"},
            "base_runtime": "vllm",
            "hardware": {"price_per_gpu_hour": price},
            "parameters": {"tp-size": [1, 2]},
            "optimization": {"objective": objective},
            "benchmark": {"traffic_scenarios": ["D(100,100)"], "num_concurrency": concurrency, **benchmark},
            "slo": slo or {},
        }
    )


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The factories of this file."""
    return SimpleNamespace(
        record=record,
        failed=failed,
        observation=observation,
        constant=constant,
        metrics=metrics,
        result=result,
        trial=trial,
        experiment=experiment,
        Share=Share,
        OOM=FailureKind.OUT_OF_MEMORY_UNDER_LOAD,
    )
