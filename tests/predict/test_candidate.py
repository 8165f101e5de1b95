import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.core import Candidate, LoadPoint
from autotuner.experiment import Experiment
from autotuner.predict.candidate import memory_shortage, model_on_gpus_for, predict_load_point, weights_text_for
from autotuner.predict.layout import Layout
from autotuner.predict.shape import catalogue
from autotuner.simulate.settings import parse_settings
from autotuner.simulate.started_engine import StartError, start_engine


def experiment(model="llama-3.1-8b", **runtime):
    return Experiment.model_validate(
        {
            "task_name": "t",
            "model": {"id_or_path": model},
            "base_runtime": "sim",
            "runtime": runtime,
            "parameters": {},
            "benchmark": {"traffic_scenarios": ["D(100,100)"], "num_concurrency": [1]},
        }
    )


def deployment_and_candidate(runtime="vllm", gpu="H100", model="llama-3.1-8b", **parameters):
    candidate = Candidate(runtime, {name.replace("_", "-"): value for name, value in parameters.items()})
    return model_on_gpus_for(experiment(model), candidate, gpu), candidate


def test_parameters_become_a_layout_types_and_limits():
    deployment, _ = deployment_and_candidate(
        tp_size=2,
        dp_size=2,
        quantization="fp8",
        kv_cache_dtype="fp8_e5m2",
        mem_fraction_static=0.8,
        max_running_requests=32,
        max_batched_tokens=2048,
        max_model_len=5000,
        cuda_graph=False,
    )
    assert deployment.layout == Layout(tp=2, dp=2, ep=1)
    assert (deployment.dtypes.mlp, deployment.dtypes.kv) == ("fp8", "fp8")
    assert (deployment.memory_fraction, deployment.max_running_requests, deployment.max_batched_tokens) == (
        0.8,
        32,
        2048,
    )
    assert (deployment.shape.max_model_len, deployment.cuda_graph) == (5000, False)


def test_replicas_with_attention_parallelism_share_the_gpus_of_tp():
    deployment, _ = deployment_and_candidate("sglang", tp_size=8, dp_size=4, **{"enable-dp-attention": True})
    assert (deployment.layout.tp, deployment.layout.gpus) == (2, 8)


@pytest.mark.parametrize(
    ("circumstances", "parameters"),
    [
        ({"gpu": None}, {}),
        ({"gpu": "a card of tomorrow"}, {}),
        ({"model": "acme/unheard-of"}, {}),
        ({}, {"quantization": "gguf"}),
        ({}, {"kv_cache_dtype": "nvfp4"}),
        ({}, {"dtype": "float32"}),
        ({}, {"cpu_offload_gb": 20}),
        ({}, {"tp_size": 7}),
        ({"gpu": "A100"}, {"quantization": "fp8"}),
    ],
)
def test_what_is_not_modelled_has_no_deployment(circumstances, parameters):
    assert deployment_and_candidate(**circumstances, **parameters)[0] is None


def test_an_extra_argument_that_moves_memory_leaves_no_deployment():
    with_flag = experiment(extra_args=("--gpu-memory-utilization", "0.5"))
    assert model_on_gpus_for(with_flag, Candidate("vllm"), "H100") is None
    assert model_on_gpus_for(experiment(extra_args=("--disable-log-requests",)), Candidate("vllm"), "H100") is not None


def test_a_model_larger_than_its_gpus_is_reported_in_figures():
    reason = memory_shortage(*deployment_and_candidate(model="llama-3.1-70b"))
    assert reason is not None
    assert "weights need 131.4 GiB per GPU" in reason
    assert "80.0 GiB x 0.92" in reason
    assert memory_shortage(*deployment_and_candidate(model="llama-3.1-70b", tp_size=2)) is None


def test_a_model_whose_size_is_guessed_is_not_refused_on_a_real_engine(tmp_path):
    quantization = {"quant_method": "novel"}
    (tmp_path / "config.json").write_text(
        json.dumps({**catalogue()["llama-3.1-70b"], "quantization_config": quantization})
    )
    assert memory_shortage(*deployment_and_candidate(model=str(tmp_path))) is None
    assert memory_shortage(*deployment_and_candidate("sim", model=str(tmp_path))) is not None


def test_the_name_of_a_stored_format_changes_nothing_and_a_type_replaces_it(tmp_path):
    quantization = {"quant_method": "awq", "bits": 4, "group_size": 128}
    config = {**catalogue()["llama-3.1-70b"], "quantization_config": quantization}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name, expected in (("awq_marlin", "int4"), (None, "int4"), ("fp8", "fp8")):
        deployment, candidate = deployment_and_candidate(model=str(tmp_path), quantization=name)
        assert deployment.dtypes.mlp == expected
        text = weights_text_for(experiment(str(tmp_path)), candidate)
        assert text.startswith("8 bit (quantization fp8)" if name == "fp8" else "4 bit (awq)")


def test_a_share_of_memory_that_the_weights_exceed_does_not_fit():
    assert memory_shortage(*deployment_and_candidate(mem_fraction_static=0.1)) is not None
    # there it is a share of what the weights leave
    assert memory_shortage(*deployment_and_candidate("trtllm", mem_fraction_static=0.1)) is None


def test_only_an_engine_that_insists_on_room_for_a_whole_request_lacks_it():
    tight = {"mem_fraction_static": 0.3, "max_model_len": 131072}
    reason = memory_shortage(*deployment_and_candidate("vllm", **tight))
    assert reason is not None
    assert "max-model-len 131072 needs 16.0 GiB" in reason
    assert memory_shortage(*deployment_and_candidate("sglang", **tight)) is None


WORLDS = st.fixed_dictionaries(
    {"tp-size": st.sampled_from([1, 2, 4]), "mem-fraction-static": st.floats(0.05, 1)},
    optional={
        "pp-size": st.sampled_from([1, 2]),
        "quantization": st.sampled_from(["fp8", "int8", "int4"]),
        "kv-cache-dtype": st.sampled_from(["auto", "fp8"]),
        "max-batched-tokens": st.integers(512, 65536),
        "max-running-requests": st.integers(1, 1024),
        "max-model-len": st.integers(1000, 131072),
    },
)


@given(WORLDS, st.sampled_from(["llama-3.1-8b", "llama-3.1-70b"]))
@settings(max_examples=60, deadline=None)
def test_a_candidate_that_is_refused_could_not_start(parameters, model):
    """Real engines have the same weights and cache beside what only the simulation counts."""
    words = [word for name, value in parameters.items() for word in (f"--{name}", str(value))]
    try:
        start_engine(parse_settings(["--model", model, *words]))
        start_error = ""
    except StartError as error:
        start_error = str(error)
    for runtime in ("sim", "vllm", "sglang", "trtllm"):
        candidate = Candidate(runtime, parameters)
        deployment = model_on_gpus_for(experiment(model), candidate, "h100_sxm")
        assert deployment is not None
        shortage = memory_shortage(deployment, candidate)
        assert shortage is None or "Out of memory" in start_error
        if runtime == "sim" and shortage is None and start_error:
            assert "Out of memory" not in start_error or "one request" in start_error  # a part of a block


def test_a_load_point_is_predicted_at_its_concurrency():
    deployment, _ = deployment_and_candidate()
    one, many = (
        predict_load_point(deployment, LoadPoint("D(1000,200)", concurrency=n), prompt_tokens=1000, output_tokens=200)
        for n in (1, 32)
    )
    assert one.tpot < many.tpot
    assert many.throughput > 5 * one.throughput


def test_a_cached_prefix_shortens_the_wait():
    deployment, _ = deployment_and_candidate()
    point = LoadPoint("P(3000,100,200)", concurrency=4)
    plain, cached = (
        predict_load_point(deployment, point, prompt_tokens=3100, output_tokens=200, prefix_tokens=n) for n in (0, 3000)
    )
    assert cached.ttft < plain.ttft


def test_a_rate_is_predicted_as_the_lowest_concurrency_that_reaches_it():
    deployment, _ = deployment_and_candidate()
    slow, fast = (
        predict_load_point(deployment, LoadPoint("D(1000,200)", rate=r), prompt_tokens=1000, output_tokens=200)
        for r in (0.5, 8.0)
    )
    assert slow.requests >= 0.5
    assert 8.0 <= fast.requests < 9.5
    assert slow.tpot < fast.tpot


def test_a_rate_beyond_the_deployment_is_predicted_at_its_highest_concurrency():
    deployment, _ = deployment_and_candidate(max_running_requests=8)
    most = predict_load_point(
        deployment, LoadPoint("D(1000,200)", concurrency=8), prompt_tokens=1000, output_tokens=200
    )
    assert (
        predict_load_point(deployment, LoadPoint("D(1000,200)", rate=1e6), prompt_tokens=1000, output_tokens=200)
        == most
    )


def test_requests_longer_than_the_model_length_are_not_predicted():
    deployment, _ = deployment_and_candidate(max_model_len=1000)
    assert (
        predict_load_point(deployment, LoadPoint("D(1000,200)", concurrency=1), prompt_tokens=1000, output_tokens=200)
        is None
    )


def test_a_bound_on_running_requests_makes_the_others_wait():
    point = LoadPoint("D(1000,200)", concurrency=64)
    free, bound = (
        predict_load_point(deployment_and_candidate(**limits)[0], point, prompt_tokens=1000, output_tokens=200)
        for limits in ({}, {"max_running_requests": 8})
    )
    assert bound.tpot < free.tpot
    assert bound.ttft > free.ttft


def test_without_graphs_an_iteration_takes_longer():
    point = LoadPoint("D(1000,200)", concurrency=1)
    graphs, eager = (
        predict_load_point(deployment_and_candidate(cuda_graph=on)[0], point, prompt_tokens=1000, output_tokens=200)
        for on in (True, False)
    )
    assert eager.tpot > graphs.tpot
