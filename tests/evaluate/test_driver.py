"""A load plan on one server, without a launch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotuner import load
from autotuner.core import LoadPoint, Workload
from autotuner.endpoints.token_ids import Vocabulary
from autotuner.evaluate.driver import LoadDriver, find_vocabulary, load_endpoint
from autotuner.experiment import Model, Slo
from autotuner.search.launch import ListedLoads
from tests.servers import SIMULATED_MODEL, ReceivedRequest, Server, complete, status

pytestmark = pytest.mark.usefixtures("forked_load_workers")

POINT = LoadPoint("D(20,5)", concurrency=1)


@pytest.mark.processes
def test_each_load_point_is_observed_recorded_and_reported(serve: Callable[..., Server]) -> None:
    points = tuple(LoadPoint("D(20,5)", concurrency=count) for count in (1, 2))
    workload = Workload(points, duration=5.0, warmup=0.0, max_requests=4)
    progress: list[tuple[str, dict[str, Any]]] = []
    load_plan = ListedLoads(workload)
    endpoint = load_endpoint(serve().url, "m", Model(id_or_path="m"), {})
    driver = LoadDriver(endpoint, load_plan, "simulated", Slo(), lambda stage, **more: progress.append((stage, more)))
    results = [driver.record_result(position, driver.observe(position, step)) for position, step in driver.steps()]
    assert [(result.load_point, result.metrics.requests, result.source) for result in results] == [
        (point, 4, "simulated") for point in points
    ]
    stages = [(stage, more["position"], more["load_point"]) for stage, more in progress]
    assert stages == [
        (stage, number, point)
        for number, point in enumerate(points, start=1)
        for stage in ("warming-up", "measuring", "measured")
    ]
    assert load_plan.ask() is None


@pytest.mark.parametrize(
    ("endpoint", "scenario", "hits"),
    [("completions", "D(160,2)", 0), ("chat", "P(160,160,2)", 2 * 160), ("completions", "C(2,80,16)", 80)],
)
def test_no_load_point_gets_prefix_cache_hits_from_an_earlier_one(
    sim_url: str, endpoint: Any, scenario: str, hits: int
) -> None:
    """The same load point with the same seed, twice in one load plan and once in another."""
    point = LoadPoint(scenario, concurrency=1)
    endpoint_under_load = load_endpoint(sim_url, SIMULATED_MODEL, Model(id_or_path=SIMULATED_MODEL), {})
    hit_counts: list[float] = []
    lengths: list[list[int | None]] = []
    for points in ((point, point), (point,)):
        workload = Workload(points, duration=60.0, warmup=0.0, max_requests=3, endpoint=endpoint)
        driver = LoadDriver(endpoint_under_load, ListedLoads(workload), "simulated", Slo(), lambda stage, **more: None)
        for position, step in driver.steps():
            observation = driver.observe(position, step)
            driver.record_result(position, observation)
            hit_counts.append(observation.counters["prefix_cache_hits"])
            lengths.append([record.prompt_tokens for record in observation.records])
    assert hit_counts == [hits] * 3
    assert lengths == [lengths[0]] * 3


def test_prompts_use_the_models_vocabulary_if_it_is_known(serve: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 1234}))
    server = serve()
    target = (server.url, "served", Model(id_or_path=str(tmp_path)), {"a": "b"})
    vocabulary = find_vocabulary(*target, Workload((POINT,)))
    assert vocabulary == Vocabulary(1234, "model")
    endpoint = load_endpoint(*target, vocabulary)
    assert (endpoint.vocab_size, endpoint.model, endpoint.headers) == (1234, "served", {"a": "b"})
    assert not server.requests


def test_a_server_is_probed_for_its_vocabulary_if_the_model_is_unknown(serve: Callable[..., Server]) -> None:
    async def small_vocabulary(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await (status(400) if max(request.body["prompt"]) >= 600 else complete)(request, writer)

    server = serve(small_vocabulary)
    target = (server.url, "m", Model(id_or_path="nobody/knows"), {"a": "b"})
    vocabulary = find_vocabulary(*target, Workload((POINT,)))
    assert vocabulary is not None
    assert 590 <= vocabulary.size <= 600
    assert {request.headers["a"] for request in server.requests} == {"b"}
    assert load_endpoint(*target, vocabulary).vocab_size == vocabulary.size
    assert load_endpoint(*target).vocab_size == 32_000


def test_prompts_of_words_need_no_vocabulary(serve: Callable[..., Server]) -> None:
    server = serve()
    workload = Workload((POINT,), endpoint="chat")
    assert find_vocabulary(server.url, "m", Model(id_or_path="nobody/knows"), {}, workload) is None
    assert not server.requests


@pytest.mark.parametrize(("ends", "measured"), [(0, True), (1, True), (2, False)])
def test_a_load_point_whose_worker_was_killed_is_driven_once_more_with_other_prompts(
    monkeypatch: pytest.MonkeyPatch, ends: int, measured: bool
) -> None:
    salts: list[str] = []

    def measure(*args: Any, salt: str, **options: Any) -> str:
        salts.append(salt)
        if len(salts) <= ends:
            raise load.WorkerEndedError("The load generator's process ended with status -9.")
        return "observed"

    monkeypatch.setattr(load, "measure", measure)
    workload = Workload((POINT,))
    endpoint = load_endpoint("http://127.0.0.1:9", "m", Model(id_or_path="m"), {})
    driver = LoadDriver(endpoint, ListedLoads(workload), "simulated", Slo(), lambda stage, **more: None)
    position, step = next(driver.steps())
    if measured:
        observed: Any = driver.observe(position, step)
        assert observed == "observed"
    else:
        with pytest.raises(load.WorkerEndedError):
            driver.observe(position, step)
    assert len(salts) == len(set(salts)) == min(2, ends + 1)
