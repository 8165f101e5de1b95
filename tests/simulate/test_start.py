from __future__ import annotations

import json
import re
import socket

import pytest

from autotuner.predict.shape import catalogue
from autotuner.simulate.settings import build_parser, parse_settings
from autotuner.simulate.started_engine import StartError, start_engine


def test_a_model_that_does_not_fit_is_out_of_memory_with_its_sizes(run_to_end):
    status, output = run_to_end("--port", "0", "--model", "llama-3.1-70b", "--mem-fraction-static", "0.85")
    assert status == 1
    assert "Out of memory: weights need 131.4 GiB" in output
    assert "80.0 GiB x 0.85" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("flags", [["--no-such-flag"], ["--tp-size", "0"], ["--gpu", "H1000"], ["--tp", "2"]])
def test_a_bad_flag_ends_with_status_2_and_usage(run_to_end, flags):
    status, output = run_to_end(*flags)
    assert status == 2
    assert "usage:" in output
    assert "error:" in output


def test_a_port_in_use_is_reported_with_its_own_status(run_to_end):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        status, output = run_to_end("--port", str(port))
    assert status == 98
    assert f"cannot listen on 127.0.0.1:{port}" in output
    assert "already in use" in output


def test_a_missing_model_is_reported(run_to_end, tmp_path):
    status, output = run_to_end("--model", str(tmp_path / "gone"))
    assert status == 1
    assert "Cannot load model" in output
    assert "There is no model at" in output


def start(*flags: str):
    return start_engine(parse_settings(flags))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tp-size", "5"], "32 attention heads are not divisible by --tp-size 5"),
        (["--pp-size", "33"], "32 layers are fewer than --pp-size 33"),
        (["--max-model-len", "200000"], "above the model's 131072 positions"),
        (["--model", "qwen3-9b"], "Cannot load model 'qwen3-9b'"),
        (["--mem-fraction-static", "0.3", "--max-model-len", "131072"], "Out of memory: the KV cache holds"),
        (
            ["--no-enable-chunked-prefill", "--max-batched-tokens", "2048", "--max-model-len", "4096"],
            "--max-batched-tokens 2048 is below --max-model-len 4096",
        ),
    ],
)
def test_settings_that_an_engine_would_reject_are_rejected(flags, message):
    with pytest.raises(StartError, match=re.escape(message)):
        start(*flags)


def test_a_model_length_that_is_not_set_is_shortened_to_what_fits():
    assert start().limits.max_model_len == 131072
    tight = start("--mem-fraction-static", "0.3")
    assert tight.limits.max_model_len == tight.kv_tokens < 131072
    unchunked = start("--no-enable-chunked-prefill", "--max-batched-tokens", "2048")
    assert unchunked.limits.max_model_len == unchunked.limits.max_batched_tokens == 2048


def test_the_kv_cache_grows_with_memory_and_with_smaller_types():
    base = start("--mem-fraction-static", "0.8").kv_tokens
    assert start("--mem-fraction-static", "0.9").kv_tokens > base
    assert start("--mem-fraction-static", "0.8", "--tp-size", "2").kv_tokens > 2 * base
    assert start("--mem-fraction-static", "0.8", "--kv-cache-dtype", "fp8").kv_tokens == pytest.approx(2 * base, abs=32)
    assert start("--mem-fraction-static", "0.8", "--quantization", "fp8").kv_tokens > base


def test_every_flag_reaches_the_scheduler():
    started_engine = start(
        *("--max-running-requests", "7", "--max-batched-tokens", "512", "--max-model-len", "1024"),
        *("--kv-block-size", "32", "--no-prefix-caching", "--schedule-policy", "lpm"),
    )
    limits = started_engine.limits
    assert (limits.max_running_requests, limits.max_batched_tokens, limits.max_model_len) == (7, 512, 1024)
    assert (limits.block_size, limits.prefix_caching, limits.policy) == (32, False, "lpm")


def test_any_config_file_is_a_model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**catalogue()["qwen3-0.6b"], "max_position_embeddings": 512}))
    assert start("--model", str(tmp_path)).limits.max_model_len == 512


def test_the_fault_flags_are_those_of_the_experiment():
    from autotuner.experiment import FaultOptions

    flags = {
        action.dest.removeprefix("fault_") for action in build_parser()._actions if action.dest.startswith("fault_")
    }
    assert flags == set(FaultOptions.model_fields)
