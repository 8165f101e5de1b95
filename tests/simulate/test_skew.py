"""Simulated engines whose costs differ from the predictions."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
from dataclasses import replace

import pytest

from autotuner.predict.efficiencies import StepParts
from autotuner.predict.steps import StepTimes
from autotuner.simulate.settings import parse_settings
from autotuner.simulate.skew import Skew
from autotuner.simulate.started_engine import StartedEngine, start_engine


def started_engine(*flags: str, sd: float = 0.25, seed: int = 0) -> StartedEngine:
    return start_engine(
        parse_settings(["--model", "llama-3.1-8b", "--skew-sd", str(sd), "--skew-seed", str(seed), *flags])
    )


def step_parts(simulated: StartedEngine, *prompts: tuple[int, int]) -> StepParts:
    """Seconds of an iteration by operator."""
    assert isinstance(simulated.iteration_times, StepTimes)
    return simulated.iteration_times.parts(prompts, 32, 32_000)


def test_without_a_deviation_all_factors_are_1():
    plain = start_engine(parse_settings(["--model", "llama-3.1-8b"]))
    same = started_engine(sd=0.0, seed=7)
    assert same.memory_plan == plain.memory_plan
    assert same.iteration_times.step([(500, 0)], 8, 4000) == plain.iteration_times.step([(500, 0)], 8, 4000)
    assert same.start_seconds == plain.start_seconds


def test_factors_are_log_normal_around_one():
    logs = [math.log(Skew(seed, 0.25).factor("weights")) for seed in range(2000)]
    assert statistics.fmean(logs) == pytest.approx(0.0, abs=0.02)
    assert statistics.stdev(logs) == pytest.approx(0.25, rel=0.05)


@pytest.mark.processes
def test_a_name_has_one_factor_in_every_process():
    code = "from autotuner.simulate.skew import Skew; print(Skew(3, 0.4).factor('block_size', 32))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(output) == Skew(3, 0.4).factor("block_size", 32)
    assert Skew(3, 0.4).factor("block_size", 16) != Skew(3, 0.4).factor("block_size", 32)


def test_candidates_share_what_they_have_in_common():
    one, other = started_engine("--max-running-requests", "64"), started_engine("--max-running-requests", "256")
    parts, others = step_parts(one), step_parts(other)
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
    parts, others = step_parts(started_engine(), (2000, 0)), step_parts(started_engine(*flags), (2000, 0))
    changed = {name for name in parts._fields if getattr(parts, name) != getattr(others, name)}
    assert changed - {"launch"} == operators


def test_memory_and_start_time_are_skewed_too():
    settings = parse_settings(["--model", "llama-3.1-8b", "--load-seconds", "60"])
    plain = start_engine(settings)
    skewed_engines = [start_engine(replace(settings, skew_seed=seed, skew_sd=0.25)) for seed in range(20)]
    kv_tokens = [skewed.kv_tokens for skewed in skewed_engines]
    start_seconds = [skewed.start_seconds for skewed in skewed_engines]
    assert {skewed.memory_plan.weights for skewed in skewed_engines} == {plain.memory_plan.weights}
    assert len(set(kv_tokens)) > 15
    assert min(kv_tokens) < plain.kv_tokens < max(kv_tokens)
    assert min(start_seconds) < 60 < max(start_seconds)
    for skewed in skewed_engines:
        memory = skewed.memory_plan
        assert memory.kv_tokens == memory.kv_pool // memory.kv_bytes_per_token


def test_the_server_takes_the_same_flags(serve):
    with serve("--model", "qwen3-0.6b", "--skew-sd", "0.25", "--skew-seed", "5") as server:
        assert "costs distorted: sd 0.25, seed 5" in server.log.read_text()
        tokens = start_engine(
            parse_settings(["--model", "qwen3-0.6b", "--skew-sd", "0.25", "--skew-seed", "5"])
        ).kv_tokens
        assert f"KV cache size: {tokens} tokens" in server.log.read_text()
