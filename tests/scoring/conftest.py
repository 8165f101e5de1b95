"""Factories: request records, metrics, trials and experiments with round figures."""

from types import SimpleNamespace
from typing import Any

import pytest

from autotuner.core import (
    Candidate,
    Failure,
    FailureKind,
    LoadPoint,
    LoadPointResult,
    Measurement,
    Observation,
    Share,
    Trial,
)
from autotuner.experiment import Experiment
from tests.factories import constant, failed, metrics, record, scored_experiment


def observation(records, window=(0.0, 10.0), point=None, **changes) -> Observation:
    """A load point's records; one stream of D(100,11) where nothing else is said."""
    fields: dict[str, Any] = {"load_point": point or LoadPoint("D(100,11)", concurrency=1), "loop_lag_p99": 0.001}
    return Observation(records=tuple(records), window=window, **(fields | changes))


def result(concurrency=1, validity=(), source="measured", rate=None, **figures) -> LoadPointResult:
    """A load point of D(100,100) with the figures of `metrics`."""
    point = LoadPoint("D(100,100)", rate=rate) if rate else LoadPoint("D(100,100)", concurrency=concurrency)
    return LoadPointResult(point, source, metrics(**figures), tuple(validity))


def trial(number, *results, parameters=None, failure=None, source="measured", purpose="search") -> Trial:
    """A trial with these load points; `failure` is a FailureKind."""
    ended = Failure(failure, "the engine's last words", "do this") if failure else None
    candidate = Candidate("vllm", parameters or {"tp-size": 1, "max-running-requests": number})
    return Trial(number, candidate, Measurement(source, results, ended), 0.0, 1.0, purpose)


def experiment(objective="minimize_latency", concurrency=(1,), **more) -> Experiment:
    return scored_experiment(objective, concurrency, **more)


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The factories of this room."""
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
