"""Prefill and decode servers in virtual time, against what their iterations and transfers take, and against plans."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotuner.core import LoadPoint, LoadStep, Metrics, Observation, Workload
from autotuner.experiment import Slo
from autotuner.planning.api import rank_deployments
from autotuner.scoring import metrics
from autotuner.simulate.disaggregated import DisaggregatedScheduler, VirtualDeployment
from autotuner.simulate.hand_over import TransferLink, prompt_kv_bytes
from autotuner.simulate.scheduler import ScheduledRequest
from autotuner.simulate.settings import SimulationSettings, parse_settings
from autotuner.simulate.started_engine import StartedEngine, start_engine
from autotuner.simulate.virtual_time import VirtualServer

MODEL, GPU = "llama-3.1-8b", "h100_sxm"


def server(*flags: str, tp: int = 1) -> tuple[SimulationSettings, StartedEngine]:
    settings = parse_settings(["--model", MODEL, "--gpu", GPU, "--tp-size", str(tp), *flags])
    return settings, start_engine(settings)


def deployment(prefills: int, decodes: int, *flags: str) -> VirtualDeployment:
    return VirtualDeployment([server(*flags)] * prefills, [server(*flags)] * decodes)


def drive(virtual: VirtualServer, scenario: str, duration: float = 10.0, **load) -> Observation:
    workload = Workload((LoadPoint(scenario, **load),), duration=duration, warmup=duration / 4)
    return virtual.drive(LoadStep(workload))


def figures(observation: Observation) -> Metrics:
    return metrics.summarize(observation, Slo())


def test_a_request_alone_takes_its_prefill_the_transfer_and_its_decodes():
    virtual = deployment(1, 1)
    record = drive(virtual, "D(1000,20)", concurrency=1).records[0]
    times, plan = virtual.started_engine.iteration_times, virtual.started_engine.memory_plan
    settings, _ = server()
    prefill = times.step([(1000, 0)], 0, 0)
    transfer = prompt_kv_bytes(plan, 1000) / settings.gpu.link_bandwidth(1)
    tokens = [times.step([], 1, 999 + token) for token in range(20)]
    assert record.chunk_times[0] - record.sent == pytest.approx(prefill + transfer + tokens[0])
    assert record.finished - record.sent == pytest.approx(prefill + transfer + sum(tokens))


def test_a_slower_link_delays_the_first_token_by_the_bytes_it_moves():
    fast, slow = (
        figures(drive(deployment(1, 1, "--kv-transfer-gbps", gbps), "D(1000,20)", concurrency=1))
        for gbps in ("50", "1")
    )
    moved = prompt_kv_bytes(server()[1].memory_plan, 1000)
    assert fast.ttft is not None
    assert slow.ttft is not None
    assert slow.ttft.mean - fast.ttft.mean == pytest.approx(moved / 1e9 - moved / 50e9, rel=1e-3)


def test_transfers_to_one_server_come_one_after_the_other():
    link = TransferLink(bandwidth=100.0)
    assert [link.receive(0.0, 100), link.receive(0.5, 50), link.receive(9.0, 100)] == [1.0, 1.5, 10.0]


def test_decodes_are_not_held_up_by_prompts():
    apart = figures(drive(deployment(1, 1), "D(4000,100)", concurrency=8))
    together = figures(drive(VirtualServer(*server()), "D(4000,100)", concurrency=8))
    assert apart.tpot is not None
    assert together.tpot is not None
    assert apart.tpot.mean < 0.8 * together.tpot.mean


def test_requests_come_back_in_the_order_of_their_ends_and_whole():
    observation = drive(deployment(2, 3), "D(500,30)", concurrency=12)
    assert len(observation.records) > 100
    assert {len(record.chunk_times) for record in observation.records if record.error is None} == {30}
    for record in observation.records:
        assert list(record.chunk_times) == sorted(record.chunk_times)
        if record.error is None:
            assert record.sent < record.chunk_times[0]
            assert record.chunk_times[-1] == record.finished


def test_equal_settings_give_equal_records():
    first, second = (drive(deployment(2, 2), "D(300,20)", rate=20.0).records for _ in range(2))
    assert [record.finished for record in first] == [record.finished for record in second]


def test_the_clock_and_the_prefix_caches_go_on_to_the_next_load_point():
    virtual = deployment(1, 1)
    drive(virtual, "D(500,10)", concurrency=2)
    clock = virtual.clock
    again = drive(virtual, "D(500,10)", concurrency=2)
    assert clock > 0
    assert min(record.sent for record in again.records) >= clock
    assert isinstance(virtual.scheduler, DisaggregatedScheduler)
    assert virtual.scheduler.is_idle
    assert virtual.scheduler.counters.finished_requests > 0


def test_a_request_is_dropped_wherever_it_is():
    virtual = deployment(1, 1)
    scheduler, token_times = virtual.scheduler, []
    for until in (0.0, 0.001, 0.1, 0.3):  # not started, prefill, transfer or decode, decode
        request = ScheduledRequest(4000, 1000, arrival_time=virtual.clock)
        scheduler.add(request)
        now, finished = scheduler.run(virtual.clock, virtual.clock + until)
        assert finished == []
        assert scheduler.abort(request)
        assert not scheduler.abort(request)
        token_times.append(len(scheduler.token_times(request)))
        assert scheduler.is_idle
        virtual.clock = now + 1.0
    assert token_times[:2] == [0, 0]
    assert token_times[-1] > 10


def test_a_request_too_long_for_the_time_limit_fails_alone():
    virtual = deployment(1, 1)
    workload = Workload((LoadPoint("D(2000,2000)", concurrency=2),), duration=10.0, warmup=0.0, request_timeout=1.0)
    observation = virtual.drive(LoadStep(workload))
    assert {record.error for record in observation.records} >= {"timeout"}
    assert virtual.scheduler.is_idle


def test_a_preempted_request_computes_its_prompt_where_it_decodes():
    settings, engine = server("--max-model-len", "2048", "--no-prefix-caching")
    engine = replace(engine, limits=replace(engine.limits, num_blocks=192))  # room for 3072 tokens
    virtual = VirtualDeployment([server()], [(settings, engine)])
    observation = drive(virtual, "D(500,800)", concurrency=4)
    assert observation.counters["preemptions"] > 0
    assert {len(record.chunk_times) for record in observation.records if record.error is None} == {800}


def test_a_planned_deployment_serves_its_rate_and_no_more():
    """At the planned rate the TPOT is the plan's; below it prompts wait less than planned, far above they pile up."""
    options = rank_deployments(MODEL, GPU, isl=1000, osl=100, total_gpus=4, tpot=0.02, ttft=0.2)
    plan = next(option for option in options if option.prefill and all(p.layout.gpus == 1 for p in option.pools))
    assert plan.prefill is not None
    found = []
    for share in (0.5, 1.0, 1.5):
        virtual = deployment(plan.prefill.workers, plan.serving.workers)
        load = {"rate": share * plan.performance.requests, "duration": 5.0}
        found.append(figures(drive(virtual, "D(1000,100)", **load)))
    ttft, tpot = ([getattr(point, name).mean for point in found] for name in ("ttft", "tpot"))
    assert tpot[1] == pytest.approx(plan.performance.tpot, rel=0.1)
    assert ttft[0] < plan.performance.ttft
    assert ttft[2] > 3 * plan.performance.ttft
