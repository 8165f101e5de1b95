"""Whole measurements of servers that are already running."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotuner.core import EARLY_STOP_ERROR, Candidate, FailureKind, Measurement, Observation, RequestRecord, Workload
from autotuner.endpoints.client import Client
from autotuner.endpoints.models import list_models
from autotuner.evaluate.create import create_evaluator
from autotuner.evaluate.external import ends_all_answers_early, without_early_stops
from autotuner.experiment import Experiment
from autotuner.search.launch import ListedLoads
from tests.factories import experiment
from tests.servers import ReceivedRequest, Server, complete, status

pytestmark = pytest.mark.usefixtures("forked_load_workers")


def external(url: str, model: str = "llama-3.1-8b", **benchmark: Any) -> Experiment:
    """Two load points of ten requests each."""
    load = {"traffic_scenarios": ["D(32,4)"], "num_concurrency": [1, 2], "duration": 5, "warmup": 0, "max_requests": 10}
    return experiment(
        base_runtime="openai",
        model={"id_or_path": model},
        deployment={"mode": "external", "url": url},
        benchmark=load | benchmark,
    )


def measure(
    subject: Experiment, folder: Path, make_plan: Callable[[Workload], ListedLoads] = ListedLoads
) -> Measurement:
    evaluator = create_evaluator(subject, lambda progress: None)
    return evaluator.evaluate(Candidate("openai"), make_plan(evaluator.workload), folder)


class ObservingLoads(ListedLoads):
    """Listed loads that send the same prompts twice, and keep what they are given."""

    def __init__(self, workload: Workload) -> None:
        same_prompts = replace(workload, prompt_salt="same", keeps_load=False)
        super().__init__(replace(same_prompts, load_points=workload.load_points * 2))
        self.servers: list[Mapping[str, Any]] = []
        self.observations: list[Observation] = []

    def server_ready(self, server: Mapping[str, Any], start_seconds: float) -> None:
        self.servers.append(server)

    def observe(self, observation: Observation) -> None:
        self.observations.append(observation)


@pytest.mark.processes
def test_a_load_plan_may_see_the_server_and_the_records_and_send_prompts_again(tmp_path: Path, sim_url: str) -> None:
    plans: list[ObservingLoads] = []

    def make_plan(workload: Workload) -> ObservingLoads:
        plans.append(ObservingLoads(workload))
        return plans[0]

    measure(external(sim_url, traffic_scenarios=["D(100,4)"], num_concurrency=[2], max_requests=4), tmp_path, make_plan)
    (server,) = plans[0].servers
    assert server["source"] == "simulated"
    first, second = plans[0].observations
    assert [len(observation.records) for observation in (first, second)] == [4, 4]
    hits = [observation.counters["prefix_cache_hits"] for observation in (first, second)]
    assert hits[0] == 0 < hits[1]


@pytest.mark.processes
def test_a_server_that_runs_already_is_measured_and_left_running(tmp_path: Path, sim_url: str) -> None:
    measurement = measure(external(sim_url), tmp_path)
    assert measurement.failure is None
    assert measurement.spec is None
    assert measurement.source == "simulated", "a simulated server stays simulated, whatever it is called"
    assert len(measurement.load_points) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"environment.json", "records-1.npz", "records-2.npz"}
    with Client(sim_url) as client:
        assert list_models(client).names


@pytest.mark.processes
def test_a_server_with_a_small_vocabulary_gets_no_other_token_ids(tmp_path: Path, tiny_url: str) -> None:
    measurement = measure(external(tiny_url), tmp_path)
    assert [result.metrics.errors for result in measurement.load_points] == [{}, {}]
    assert measurement.server["vocabulary"]["origin"] == "server"
    assert 505 <= measurement.server["vocabulary"]["size"] <= 512


@pytest.mark.processes
def test_a_server_of_another_model_is_not_measured(tmp_path: Path, sim_url: str) -> None:
    failure = measure(external(sim_url, "another"), tmp_path).failure
    assert failure is not None
    assert failure.kind is FailureKind.WRONG_MODEL


@pytest.mark.processes
def test_what_a_server_answered_before_it_died_is_kept(tmp_path: Path, serve: Callable[..., Server]) -> None:
    prompts = 0

    async def die(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        nonlocal prompts
        prompts += len(request.body["prompt"]) == 32  # those of the load
        await (complete if prompts <= 10 else status(500, "out of memory"))(request, writer)

    measurement = measure(external(serve(die).url, "m"), tmp_path)
    assert [result.answered_requests for result in measurement.load_points] == [10, 0]
    assert measurement.failure is not None
    assert measurement.failure.kind is FailureKind.HUNG_UNDER_LOAD
    assert "out of memory" in measurement.failure.message


def record(index: int, error: str | None) -> RequestRecord:
    return RequestRecord(index, 0.0, 0.0, 1.0, (0.5,), (1,), 8, 4, error=error)


@pytest.mark.parametrize(
    ("errors", "all_early"),
    [((EARLY_STOP_ERROR,) * 2, True), ((EARLY_STOP_ERROR, None), False), ((), False), ((None,), False)],
)
def test_answers_that_all_end_early_are_answers(errors: tuple[str | None, ...], all_early: bool) -> None:
    point = external("http://h:1").workload().load_points[0]
    records = (record(-1, None), *(record(index, error) for index, error in enumerate(errors)))
    observation = Observation(point, records, (0.0, 1.0), 0.0)
    assert ends_all_answers_early(observation) == all_early
    assert {record.error for record in without_early_stops(observation).records} == {None}
