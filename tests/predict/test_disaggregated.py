from __future__ import annotations

import math

import pytest

from autotuner.predict.disaggregated import (
    PREFILL_UTILIZATION,
    decode_workers,
    disaggregated_option,
    match_workers,
    pareto_prefill_workers,
    prefill_queue_seconds,
    prefill_worker,
    transfer_seconds,
)
from autotuner.predict.layout import Layout
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.traffic import LatencyTarget, Software, Traffic


def load_curve(gpu="h100", model="llama-3.1-70b", **layout) -> LoadCurve:
    return LoadCurve(Software("vllm").deploy(model, gpu, Layout(**layout or {"tp": 4})), Traffic(4000, 500))


def test_tokens_decode_faster_without_prefills_beside_them():
    curve = load_curve()
    decode = decode_workers(curve, (64,))[0]
    assert decode.tpot < curve.at_concurrency(64).tpot
    assert decode.rate == pytest.approx(64 / (499 * decode.tpot))


def test_prefill_workers_keep_up_with_the_decode_workers_they_are_matched_to():
    prefill, decode = prefill_worker(load_curve()), decode_workers(load_curve(tp=8), (64,))[0]
    matched = match_workers(prefill, decode, 32)
    assert matched is not None
    first, second = matched
    assert first * prefill.gpus + second * decode.gpus <= 32
    assert second * decode.rate <= PREFILL_UTILIZATION * first * prefill.rate
    assert match_workers(prefill, decode, 11) is None


def test_a_transfer_takes_the_bytes_of_the_prompt_over_the_link():
    prefill, decode = prefill_worker(load_curve()), decode_workers(load_curve(), (8,))[0]
    sent = 4000 * 80 * 2 * 2 * 128 * 2  # tokens, layers, key and value, heads of 8 on one of 4 GPUs, elements, bytes
    assert prefill.kv_bytes_sent == sent
    assert transfer_seconds(prefill, decode, 8) == pytest.approx(sent / 450e9)
    assert transfer_seconds(prefill, decode, 16) == pytest.approx(sent / 50e9)


def test_two_gpu_types_meet_over_the_network():
    prefill, decode = prefill_worker(load_curve()), decode_workers(load_curve("b200"), (8,))[0]
    assert transfer_seconds(prefill, decode, 8) == pytest.approx(prefill.kv_bytes_sent / 50e9)


def test_time_to_first_token_is_queue_prefill_and_transfer():
    prefill, decode = prefill_worker(load_curve()), decode_workers(load_curve(), (32,))[0]
    option = disaggregated_option(prefill, decode, (1, 1), decode.rate, budget=8, target=LatencyTarget(), prices={})
    wait = prefill_queue_seconds(prefill, 1, decode.rate)
    assert option.ttft == pytest.approx(wait + prefill.latency + option.transfer_seconds)
    assert option.transfer_seconds > 0
    assert option.tpot == decode.tpot
    assert option.serving.batch == pytest.approx(32)


def test_one_prefill_worker_queues_as_a_single_server_of_constant_service():
    worker = prefill_worker(load_curve())
    busy = 0.7
    queued = prefill_queue_seconds(worker, 1, busy * worker.rate)
    assert queued == pytest.approx(busy / worker.rate / (2 * (1 - busy)), rel=0.01)
    assert math.isinf(prefill_queue_seconds(worker, 1, worker.rate))


def test_only_workers_that_are_best_at_something_are_kept():
    workers = [prefill_worker(load_curve(tp=tp)) for tp in (2, 4, 8)]
    worse = [prefill_worker(load_curve(gpu="a100", tp=4))]
    assert worse[0] not in pareto_prefill_workers([*workers, *worse])
    assert pareto_prefill_workers(workers)
