"""Servers that run already."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotuner.errors import ConfigError, EndpointError
from autotuner.experiment import Benchmark, Deployment, Experiment, Model
from autotuner.launchers.external import ExternalLauncher


def experiment(url: str | None, model: str = "llama-3.1-8b") -> Experiment:
    return Experiment(
        task_name="t",
        model=Model(id_or_path=model),
        base_runtime="vllm",
        deployment=Deployment(mode="external", url=url),
        parameters={},
        benchmark=Benchmark(traffic_scenarios=("D(8,8)",), num_concurrency=(1,)),
    )


def preflight(subject: Experiment) -> None:
    ExternalLauncher(subject.deployment).preflight(subject, None)


def test_a_missing_url_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match="--url"):
        preflight(experiment(None))
    with pytest.raises(ConfigError, match="--url"), ExternalLauncher(Deployment()).launch(None, Path("unused")):
        pytest.fail("there is no server")


def test_a_url_where_nothing_answers_is_an_error_of_the_endpoint() -> None:
    with pytest.raises(EndpointError, match=r"Nothing that serves a model answers at http://127\.0\.0\.1:9"):
        preflight(experiment("http://127.0.0.1:9"))


def test_a_url_that_serves_another_model_is_named(sim_url: str, wait: object) -> None:
    from autotuner.launchers import ready
    from autotuner.launchers.external import ExternalServer

    ready.wait_until_ready(ExternalServer(sim_url), ready_path="/health", model="llama-3.1-8b", timeout=120)
    with pytest.raises(EndpointError, match=r"does not serve 'another'\. It serves: llama-3\.1-8b"):
        preflight(experiment(sim_url, "another"))
    preflight(experiment(sim_url))
