"""Simulated engines whose costs differ from the predictions."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
from dataclasses import replace

import pytest

from autotuner.simulate.settings import parse_settings
from autotuner.simulate.skew import Skew
from autotuner.simulate.world import World, build_world


def world(*flags: str, sd: float = 0.25, seed: int = 0) -> World:
    return build_world(
        parse_settings(["--model", "llama-3.1-8b", "--skew-sd", str(sd), "--skew-seed", str(seed), *flags])
    )


def test_without_a_deviation_all_factors_are_1():
    plain = build_world(parse_settings(["--model", "llama-3.1-8b"]))
    same = world(sd=0.0, seed=7)
    assert same.memory_plan == plain.memory_plan
    assert same.iteration_times.step([(500, 0)], 8, 4000) == plain.iteration_times.step([(500, 0)], 8, 4000)
    assert same.start_seconds == plain.start_seconds


def test_factors_are_log_normal_around_one():
    logs = [math.log(Skew(seed, 0.25).factor("weights")) for seed in range(2000)]
    assert statistics.fmean(logs) == pytest.approx(0.0, abs=0.02)
    assert statistics.stdev(logs) == pytest.approx(0.25, rel=0.05)


def test_a_name_has_one_factor_in_every_process():
    code = "from autotuner.simulate.skew import Skew; print(Skew(3, 0.4).factor('block_size', 32))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(output) == Skew(3, 0.4).factor("block_size", 32)
    assert Skew(3, 0.4).factor("block_size", 16) != Skew(3, 0.4).factor("block_size", 32)


def test_candidates_share_what_they_have_in_common():
    one, other = world("--max-running-requests", "64"), world("--max-running-requests", "256")
    parts, others = one.iteration_times.parts([], 32, 32_000), other.iteration_times.parts([], 32, 32_000)
    assert parts._replace(step=0.0) == others._replace(step=0.0)
    assert parts.step != others.step


@pytest.mark.parametrize(
    ("flags", "operators"),
    [
        (("--kv-block-size", "32"), {"attention"}),
        (("--no-enable-chunked-prefill",), {"attention"}),
        (("--max-batched-tokens", "4096"), {"attention_proj", "mlp", "head"}),
        (("--max-running-requests", "64"), {"step"}),
    ],
)
def test_a_parameters_value_has_a_factor_on_the_operators_it_affects(flags, operators):
    plain, other = world(), world(*flags)
    parts, others = (
        plain.iteration_times.parts([(2000, 0)], 32, 32_000),
        other.iteration_times.parts([(2000, 0)], 32, 32_000),
    )
    changed = {name for name in parts._fields if getattr(parts, name) != getattr(others, name)}
    assert changed - {"launch"} == operators


def test_memory_and_start_time_are_skewed_too():
    settings = parse_settings(["--model", "llama-3.1-8b", "--load-seconds", "60"])
    plain, worlds = (
        build_world(settings),
        [build_world(replace(settings, skew_seed=seed, skew_sd=0.25)) for seed in range(20)],
    )
    assert {skewed.memory_plan.weights for skewed in worlds} == {plain.memory_plan.weights}
    assert len({skewed.kv_tokens for skewed in worlds}) > 15
    assert min(skewed.kv_tokens for skewed in worlds) < plain.kv_tokens < max(skewed.kv_tokens for skewed in worlds)
    assert min(skewed.start_seconds for skewed in worlds) < 60 < max(skewed.start_seconds for skewed in worlds)
    for skewed in worlds:
        memory = skewed.memory_plan
        assert memory.kv_tokens == memory.kv_pool // memory.kv_bytes_per_token


def test_the_server_takes_the_same_flags(serve):
    with serve("--model", "qwen3-0.6b", "--skew-sd", "0.25", "--skew-seed", "5") as server:
        assert "costs distorted: sd 0.25, seed 5" in server.log.read_text()
        tokens = build_world(
            parse_settings(["--model", "qwen3-0.6b", "--skew-sd", "0.25", "--skew-seed", "5"])
        ).kv_tokens
        assert f"KV cache size: {tokens} tokens" in server.log.read_text()
