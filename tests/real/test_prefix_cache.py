"""A real vLLM with its prefix cache on: a load point that is driven again is new to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from autotuner.core import Candidate, Check, LoadPoint, Observation, Workload
from autotuner.endpoints.counters import counter_deltas, read_counters
from autotuner.engines import LaunchContext, engine
from autotuner.evaluate.driver import LoadDriver, find_vocabulary, load_endpoint
from autotuner.experiment import Benchmark, Deployment, Experiment, Model, Runtime, Slo
from autotuner.launchers import ports, ready
from autotuner.launchers.process import ProcessLauncher
from autotuner.search.launch import ListedLoads

pytestmark = pytest.mark.engine

CACHING = ("--enable-prefix-caching", "--enable-prompt-tokens-details")
BLOCK = 128
"""Tokens of a block of vLLM's KV cache on a CPU: less of a prompt is never found."""


def experiment(vllm: Path, model: Path) -> Experiment:
    return Experiment(
        task_name="real",
        model=Model(id_or_path=str(model)),
        base_runtime="vllm",
        runtime=Runtime(executable=str(vllm), extra_args=CACHING, env={"HF_HUB_OFFLINE": "1"}),
        deployment=Deployment(mode="process"),
        parameters={},
        benchmark=Benchmark(traffic_scenarios=("D(400,10)",), num_concurrency=(2,)),
    )


def driven(url: str, served: str, model: Model, endpoint: Any, scenario: str) -> tuple[Observation, Check]:
    """Drive one load point as a run of its own, always with the same seed; the observation, and its cache check."""
    point = LoadPoint(scenario, concurrency=2)
    workload = Workload((point,), duration=60.0, warmup=0.0, max_requests=12, endpoint=endpoint, seed=7)
    ids = find_vocabulary(url, served, model, {}, workload)
    load_plan = ListedLoads(workload)
    drive = LoadDriver(
        load_endpoint(url, served, model, {}, ids), load_plan, "measured", Slo(), lambda stage, **more: None
    )
    position, step = next(drive.steps())
    observation = drive.observe(position, step)
    result = drive.record_result(position, observation)
    assert [record.error for record in observation.records if record.index >= 0] == [None] * 12
    return observation, next(check for check in result.validity if check.name == "cache-hits")


def test_the_same_seed_twice_finds_nothing_of_the_first_time_in_the_prefix_cache(
    vllm: Path, tiny_model: Path, processes: Callable[[], dict[int, str]], tmp_path: Path
) -> None:
    real = experiment(vllm, tiny_model)
    spec = engine("vllm").server_spec(
        Candidate("vllm", {"cuda-graph": False}), LaunchContext.from_experiment(real, ports.free_port())
    )
    with ProcessLauncher().launch(spec, tmp_path / "server.log") as server:
        ready.wait_until_ready(server, ready_path=spec.ready_path, model=spec.served_model, timeout=300)
        where = (server.url, spec.served_model, real.model)

        # the cache is on, and its counters are the ones that are read
        before = read_counters(server.url)
        body = {"model": spec.served_model, "prompt": list(range(10, 410)), "max_tokens": 1}
        for _ in range(2):
            assert httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).status_code == 200
        assert counter_deltas(before, read_counters(server.url))["prefix_cache_hits"] >= BLOCK

        for endpoint in ("completions", "chat"):
            for _ in range(2):
                observation, check = driven(*where, endpoint, "D(400,10)")
                assert observation.counters["prefix_cache_queries"] >= 12 * 380
                assert observation.counters["prefix_cache_hits"] <= 0.05 * observation.counters["prefix_cache_queries"]
                assert check.ok, check

        # what its own requests share is found, but not by the first of them
        for _ in range(2):
            observation, _check = driven(*where, "completions", f"P({2 * BLOCK},144,10)")
            others = len(observation.records) - 1
            assert 0 < observation.counters["prefix_cache_hits"] <= others * 2 * BLOCK
    assert processes() == {}
