"""A course on one server, without a launch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotuner.core import LoadPoint, Workload
from autotuner.evaluate.driver import LoadDriver, find_vocabulary, load_endpoint
from autotuner.experiment import Model, Slo
from autotuner.launchers.token_ids import Vocabulary
from autotuner.search.launch import ListedLoads
from tests.evaluate.conftest import MODEL
from tests.load.conftest import ReceivedRequest, Server, complete, serve, status

__all__ = ["serve"]

POINT = LoadPoint("D(20,5)", concurrency=1)


def test_each_load_point_is_observed_then_kept_and_told(serve: Callable[..., Server]) -> None:
    points = tuple(LoadPoint("D(20,5)", concurrency=count) for count in (1, 2))
    workload = Workload(points, duration=5.0, warmup=0.0, max_requests=4)
    told: list[tuple[str, dict[str, Any]]] = []
    course = ListedLoads(workload)
    endpoint = load_endpoint(serve().url, "m", Model(id_or_path="m"), {})
    drive = LoadDriver(endpoint, course, "simulated", Slo(), lambda stage, **more: told.append((stage, more)))
    kept = [drive.record_result(position, drive.observe(position, step)) for position, step in drive.steps()]
    assert [(result.load_point, result.metrics.requests, result.source) for result in kept] == [
        (point, 4, "simulated") for point in points
    ]
    stages = [(stage, more["position"], more["load_point"]) for stage, more in told]
    assert stages == [
        (stage, number, point)
        for number, point in enumerate(points, start=1)
        for stage in ("warming-up", "measuring", "measured")
    ]
    assert course.ask() is None


@pytest.mark.parametrize(
    ("endpoint", "scenario", "hits"),
    [("completions", "D(160,2)", 0), ("chat", "P(160,160,2)", 2 * 160), ("completions", "C(2,80,16)", 80)],
)
def test_no_load_point_finds_in_the_prefix_cache_what_one_before_it_left_there(
    sim_url: str, endpoint: Any, scenario: str, hits: int
) -> None:
    """The same load point of the same seed, twice in one course and once in another."""
    point = LoadPoint(scenario, concurrency=1)
    target = load_endpoint(sim_url, MODEL, Model(id_or_path=MODEL), {})
    cached: list[float] = []
    lengths: list[list[int | None]] = []
    for points in ((point, point), (point,)):
        workload = Workload(points, duration=60.0, warmup=0.0, max_requests=3, endpoint=endpoint)
        drive = LoadDriver(target, ListedLoads(workload), "simulated", Slo(), lambda stage, **more: None)
        for position, step in drive.steps():
            observation = drive.observe(position, step)
            drive.record_result(position, observation)
            cached.append(observation.counters["prefix_cache_hits"])
            lengths.append([record.prompt_tokens for record in observation.records])
    assert cached == [hits] * 3
    assert lengths == [lengths[0]] * 3


def test_prompts_use_the_models_vocabulary_where_it_is_known(serve: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 1234}))
    server = serve()
    where = (server.url, "served", Model(id_or_path=str(tmp_path)), {"a": "b"})
    ids = find_vocabulary(*where, Workload((POINT,)))
    assert ids == Vocabulary(1234, "model")
    known = load_endpoint(*where, ids)
    assert (known.vocab_size, known.model, known.headers) == (1234, "served", {"a": "b"})
    assert not server.requests


def test_a_server_is_asked_for_its_vocabulary_where_nothing_is_known_of_the_model(serve: Callable[..., Server]) -> None:
    async def small(asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await (status(400) if max(asked.body["prompt"]) >= 600 else complete)(asked, writer)

    server = serve(small)
    where = (server.url, "m", Model(id_or_path="nobody/knows"), {"a": "b"})
    ids = find_vocabulary(*where, Workload((POINT,)))
    assert ids is not None
    assert 590 <= ids.size <= 600
    assert {asked.headers["a"] for asked in server.requests} == {"b"}
    assert load_endpoint(*where, ids).vocab_size == ids.size
    assert load_endpoint(*where).vocab_size == 32_000


def test_prompts_of_words_need_no_vocabulary(serve: Callable[..., Server]) -> None:
    server = serve()
    workload = Workload((POINT,), endpoint="chat")
    assert find_vocabulary(server.url, "m", Model(id_or_path="nobody/knows"), {}, workload) is None
    assert not server.requests
