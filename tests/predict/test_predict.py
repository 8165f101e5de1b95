from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.errors import ConfigError
from autotuner.predict.calibration import bundled_calibration, read_calibration
from autotuner.predict.harness import AUTOTUNE, INFERENCEX
from autotuner.predict.model_on_gpus import model_on_gpus
from autotuner.predict.predict import DoesNotFitError, predict

LOAD: dict[str, Any] = {"isl": 1024, "osl": 1024, "concurrency": 16}


def test_a_known_model_is_near_what_was_measured():
    prediction = predict("Llama-3.1-70B", "h200", tp=4, gemm_dtype="fp8", kv_dtype="fp8", engine="vllm", **LOAD)
    assert prediction.model_measured
    assert prediction.tpot == pytest.approx(0.0109, rel=0.15)
    assert prediction.ttft == pytest.approx(0.126, rel=0.3)


def test_models_of_the_same_sizes_share_their_predictions():
    r1, v31 = (predict(name, "b200", tp=8, gemm_dtype="fp8", **LOAD) for name in ("deepseek-r1", "deepseek-v3.1-nvfp4"))
    assert v31.model_measured
    assert v31.tpot == r1.tpot


def test_intervals_contain_the_prediction_and_are_wider_for_a_model_never_measured():
    measured = predict("Llama-3.1-70B", "h200", tp=4, gemm_dtype="fp8", kv_dtype="fp8", engine="vllm", **LOAD)
    new = predict("Qwen3-8B", "h200", tp=4, gemm_dtype="fp8", **LOAD)
    assert not new.model_measured
    for prediction in (measured, new):
        assert prediction.ttft_interval.lower < prediction.ttft < prediction.ttft_interval.upper
        assert prediction.tpot_interval.lower < prediction.tpot < prediction.tpot_interval.upper
    ratios = [prediction.tpot_interval.upper / prediction.tpot_interval.lower for prediction in (measured, new)]
    assert ratios[0] < ratios[1]


def test_throughput_is_what_littles_law_says():
    prediction = predict("qwen3-8b", "h100", **LOAD)
    assert prediction.requests * (prediction.ttft + 1023 * prediction.tpot) == pytest.approx(16)
    assert prediction.throughput == pytest.approx(1024 * prediction.requests)


def test_operators_add_up_to_iterations_shorter_than_what_requests_see():
    prediction = predict("qwen3-8b", "h100", **LOAD)
    assert sum(prediction.prefill.values()) < prediction.ttft
    assert sum(prediction.decode.values()) < prediction.tpot
    assert prediction.decode["mlp"] > prediction.decode["head"] > 0


def test_a_version_that_reads_every_expert_decodes_as_slowly_for_few_as_for_many():
    load: dict[str, Any] = {"tp": 4, "gemm_dtype": "fp8", "moe_dtype": "fp8", "isl": 2000, "osl": 1000}
    few, many = (
        predict("qwen3-30b-a3b", "h200", version="0.12.0", concurrency=n, **load).decode["expert"] for n in (1, 32)
    )
    assert many == pytest.approx(few, rel=0.05)
    assert predict("qwen3-30b-a3b", "h200", version="0.18.0", concurrency=1, **load).decode["expert"] < 0.4 * few


def test_only_an_engine_that_balances_replicas_holds_prompts_back():
    calibration = bundled_calibration()
    held = {
        engine: calibration.serving_constants(engine, 60, dp=8).gather_iterations
        for engine in ("vllm", "sglang", "trtllm")
    }
    assert held["trtllm"] > held["vllm"] == held["sglang"] == 0
    assert calibration.serving_constants("trtllm", 60, dp=1).gather_iterations == 0


def test_a_deeper_model_takes_longer_to_begin():
    calibration = bundled_calibration()
    shallow, deep = (calibration.serving_constants("sglang", layers).overhead for layers in (30, 60))
    assert deep == pytest.approx(2 * shallow)


def test_a_full_cache_makes_requests_queue():
    short = predict("Llama-3.1-70B", "h100", tp=2, gemm_dtype="fp8", isl=8192, osl=1024, concurrency=4)
    long = predict("Llama-3.1-70B", "h100", tp=2, gemm_dtype="fp8", isl=8192, osl=1024, concurrency=256)
    assert long.max_in_flight < 256
    assert long.ttft > 20 * short.ttft


def test_drafts_shorten_tokens_and_cached_prefixes_the_first_one():
    plain = predict("qwen3-8b", "h100", isl=8192, osl=512, concurrency=4)
    assert predict("qwen3-8b", "h100", isl=8192, osl=512, concurrency=4, draft_tokens=3).tpot < 0.8 * plain.tpot
    assert predict("qwen3-8b", "h100", isl=8192, osl=512, concurrency=4, prefix_hit=0.9).ttft < 0.7 * plain.ttft


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tp": 3}, "not divisible by tp 3"),
        ({"concurrency": 0}, "concurrency must be at least 1"),
        ({"isl": -5}, "isl must be at least 1"),
        ({"isl": 40_000, "osl": 10_000}, "more than the 40960 positions"),
        ({"gpu": "a100", "gemm_dtype": "fp8"}, "does not compute in fp8"),
        ({"gpu": "abacus"}, "Unknown GPU 'abacus'"),
        ({"gemm_dtype": "fp7"}, "Unknown dtype 'fp7'"),
        ({"prefix_hit": 1.5}, "prefix hit rate"),
    ],
)
def test_what_cannot_be_is_refused_by_name(change, message):
    arguments = {"model": "qwen3-8b", "gpu": "h100", **LOAD, **change}
    with pytest.raises(ConfigError, match=message):
        predict(arguments.pop("model"), arguments.pop("gpu"), **arguments)


def test_what_does_not_fit_says_so_in_figures():
    with pytest.raises(DoesNotFitError, match=r"Weights need .* GiB per GPU"):
        predict("deepseek-r1", "h100", tp=4, **LOAD)


@settings(max_examples=60, deadline=None)
@given(
    model=st.sampled_from(["qwen3-8b", "qwen3-30b-a3b", "minimax-m2.5", "gpt-oss-20b", "mimo-v2-flash"]),
    engine=st.sampled_from(["vllm", "sglang", "trtllm"]),
    isl=st.integers(1, 16_000),
    osl=st.integers(1, 8000),
    concurrency=st.integers(1, 400),
)
def test_more_requests_never_make_a_new_models_tokens_faster(model, engine, isl, osl, concurrency):
    few = predict(model, "b300", isl=isl, osl=osl, concurrency=concurrency, engine=engine, tp=4)
    many = predict(model, "b300", isl=isl, osl=osl, concurrency=2 * concurrency, engine=engine, tp=4)
    is_measured = few.model_measured
    assert few.tpot > 0
    assert is_measured or many.tpot >= few.tpot * 0.999


def test_constants_are_physical():
    calibration = bundled_calibration()
    for name in ("gemm_compute", "attention_proj_memory", "mlp_memory", "prefill_attention", "allreduce_bytes"):
        for engine in ("vllm", "sglang", "trtllm"):
            # What measured kernels take times these is what whole servers take.
            assert 0.5 < calibration.value(name, engine, "hopper") < 2, name


@pytest.mark.parametrize("harness", [None, INFERENCEX, AUTOTUNE])
@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("concurrency", [1, 40])
def test_ttft_and_tpot_are_the_sums_of_their_parts(harness, engine, concurrency):
    prediction = predict("qwen3-8b", "h100", isl=2000, osl=200, concurrency=concurrency, engine=engine, harness=harness)
    assert sum(prediction.ttft_parts.values()) == pytest.approx(prediction.ttft)
    assert sum(prediction.tpot_parts.values()) == pytest.approx(prediction.tpot)
    assert min(*prediction.ttft_parts.values(), *prediction.tpot_parts.values()) >= -1e-9
    if concurrency == 1:
        assert prediction.ttft_parts["scheduler wait"] + prediction.ttft_parts["queue"] == pytest.approx(0, abs=1e-9)


def test_one_request_takes_as_long_in_closed_form_as_in_a_schedule():
    load: dict[str, Any] = {"isl": 2000, "osl": 200, "concurrency": 1}
    quick, simulated = (predict("qwen3-8b", "h100", **load, harness=harness) for harness in (None, AUTOTUNE))
    assert simulated.ttft == pytest.approx(quick.ttft, rel=0.01)
    assert simulated.tpot == pytest.approx(quick.tpot, rel=0.01)


def test_a_harness_that_counts_the_burst_at_its_start_sees_a_later_first_token():
    load: dict[str, Any] = {"isl": 2000, "osl": 200, "concurrency": 64}
    burst, steady = (predict("qwen3-8b", "h100", **load, harness=harness) for harness in (INFERENCEX, AUTOTUNE))
    assert burst.ttft > 1.1 * steady.ttft


def test_a_guessed_architecture_has_a_wider_interval(tmp_path):
    sizes = {"hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8}
    sizes |= {"vocab_size": 151936, "intermediate_size": 12288, "max_position_embeddings": 40960}
    widths = []
    for architecture in ("Qwen3ForCausalLM", "SomethingNewForCausalLM"):
        (tmp_path / "config.json").write_text(json.dumps({**sizes, "architectures": [architecture]}))
        interval = predict(str(tmp_path), "h100", isl=2000, osl=200, concurrency=8).tpot_interval
        widths.append(interval.upper / interval.lower)
        (tmp_path / "config.json").unlink()
        model_on_gpus.cache_clear()
    assert widths[1] > 1.5 * widths[0]


def test_constants_that_cannot_be_read_are_named(tmp_path):
    broken = tmp_path / "constants.yaml"
    broken.write_text("constants: {}")
    with pytest.raises(ConfigError, match=r"Cannot read the constants in .*constants\.yaml"):
        read_calibration(broken)
