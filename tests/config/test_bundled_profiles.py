"""The six profiles, value by value."""

import itertools
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from autotuner.config import TaskConfigFactory, TaskContext, compose
from autotuner.engines import LaunchContext, engine
from autotuner.rules import Rules
from autotuner.search.space import Space

# What an SGLang container gets before any profile.
DOCKER_SGLANG: dict[str, Any] = {
    "task_name": "m_racing",
    "model": {"id_or_path": "m", "namespace": "autotuner"},
    "base_runtime": "sglang",
    "runtime": {"image": "lmsysorg/sglang:v0.5.23"},
    "deployment": {"mode": "docker"},
    "optimization": {
        "strategy": "racing",
        "objective": "minimize_latency",
        "max_iterations": 10,
        "timeout_per_iteration": 600,
    },
    "parameters": {
        "tp-size": [1, 2, 4],
        "mem-fraction-static": [0.85, 0.9],
        "schedule-policy": ["lpm"],
        "enable-torch-compile": [True, False],
    },
    "benchmark": {
        "task": "text-to-text",
        "model_name": "m",
        "traffic_scenarios": ["D(100,100)"],
        "num_concurrency": [1, 4],
    },
}

# profile: objective, max_iterations, timeout, tp-size, mem-fraction-static, concurrency
GOLDEN = {
    "quick-test": ("minimize_latency", 2, 600, [1], [0.85], [1]),
    "balanced": ("minimize_latency", 15, 600, [1, 2, 4], [0.8, 0.85, 0.9], [4, 8, 16]),
    "low-latency": ("minimize_latency", 15, 600, [1, 2], [0.7, 0.8], [1, 4, 8]),
    "high-throughput": ("maximize_throughput", 20, 600, [4, 8], [0.95], [16, 32, 64]),
    "cost-optimization": ("minimize_latency", 12, 600, [1, 2], [0.75, 0.85], [4, 8, 16]),
    "production": ("minimize_latency", 30, 900, [1, 2, 4], [0.85, 0.9], [1, 4]),
}
PRODUCTION_SLO = {
    "ttft": {"threshold": 1.0, "weight": 2.0},
    "tpot": {"threshold": 0.05, "weight": 2.0},
    "latency": {"p90": {"threshold": 5.0, "weight": 3.0, "hard_fail": True, "fail_ratio": 0.2}},
}


def composed(*profiles, **more):
    return compose(
        TaskContext(model_name="m", base_runtime="sglang", deployment_mode="docker", profiles=profiles, **more)
    )


def test_without_a_profile_the_defaults_are_these():
    assert composed().data == DOCKER_SGLANG


@pytest.mark.parametrize("profile", GOLDEN)
def test_a_profile_on_sglang_in_docker_has_exactly_these_values(profile):
    objective, iterations, timeout, sizes, fractions, concurrency = GOLDEN[profile]
    expected = {
        **DOCKER_SGLANG,
        "optimization": {
            "strategy": "racing",
            "objective": objective,
            "max_iterations": iterations,
            "timeout_per_iteration": timeout,
            **({"confirm": 0} if profile == "quick-test" else {}),
        },
        "parameters": {**DOCKER_SGLANG["parameters"], "tp-size": sizes, "mem-fraction-static": fractions},
        "benchmark": {**DOCKER_SGLANG["benchmark"], "num_concurrency": concurrency},
        **({"slo": PRODUCTION_SLO} if profile == "production" else {}),
    }
    assert composed(profile).data == expected


def test_the_six_profiles_are_listed_with_their_metadata():
    listed = {entry["name"]: entry for entry in TaskConfigFactory.list_profiles()}
    assert set(listed) == set(GOLDEN)
    for name, entry in listed.items():
        assert entry["layer_names"] == [f"{name}-params"]
        assert entry["layers_count"] == 1
        assert all(entry[key] for key in ("description", "use_case", "tags", "recommended_for", "source"))
        assert "problem" not in entry
    assert listed["balanced"]["description"] == "Balanced configuration exploring common parameter ranges"
    assert listed["balanced"]["use_case"] == "General purpose testing, exploring parameter space"
    assert listed["balanced"]["tags"] == ["balanced", "general", "exploration"]
    assert listed["balanced"]["recommended_for"] == ["general", "exploration", "baseline"]


def test_ome_tries_more_than_docker():
    parameters = compose(TaskContext(model_name="m", base_runtime="sglang", deployment_mode="ome")).data["parameters"]
    assert parameters["tp-size"] == [1, 2, 4, 8]
    assert parameters["mem-fraction-static"] == [0.8, 0.85, 0.9]


@pytest.mark.parametrize(
    ("gpu", "sizes", "fractions"),
    [
        ("H100", [1, 2, 4, 8], [0.85, 0.9, 0.95]),
        ("NVIDIA H100 80GB HBM3", [1, 2, 4, 8], [0.85, 0.9, 0.95]),
        ("a100", [1, 2, 4], [0.8, 0.85]),
        ("NVIDIA GeForce RTX 4090", [1, 2], [0.8, 0.85]),
        ("rtx5090", [1, 2], [0.8, 0.85]),
        ("NVIDIA RTX PRO 6000", [1, 2, 4], [0.85, 0.9]),
    ],
)
def test_a_known_gpu_type_changes_what_is_tried(gpu, sizes, fractions):
    composition = composed(gpu_type=gpu)
    assert composition.layers[-1] == "gpu-aware"
    assert composition.data["parameters"]["tp-size"] == sizes
    assert composition.data["parameters"]["mem-fraction-static"] == fractions
    assert composition.data["hardware"] == {"gpu_type": gpu}


@pytest.mark.parametrize("gpu", ["h100", "a100"])
def test_a_hardware_preset_says_the_same_as_the_gpu_it_is_named_for(gpu):
    with_preset, with_gpu = composed(layers=[gpu]), composed(gpu_type=gpu.upper())
    assert with_preset.data == with_gpu.data
    assert with_preset.layers == [*with_gpu.layers, gpu]


def test_a_profile_beats_what_the_gpu_type_suggests():
    assert composed("quick-test", gpu_type="H100").data["parameters"]["tp-size"] == [1]


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [
        ("vllm", {"quantization": ["fp8"], "kv-cache-dtype": ["fp8"]}),
        ("sglang", {"quantization": ["fp8"], "kv-cache-dtype": ["fp8"]}),
        ("trtllm", {"kv-cache-dtype": ["fp8"]}),
    ],
)
def test_the_fp8_preset_asks_each_engine_for_what_it_has(runtime, expected):
    context = {"model_name": "m", "base_runtime": runtime, "deployment_mode": "docker"}
    plain = compose(TaskContext(**context)).data["parameters"]
    parameters = compose(TaskContext(**context, layers=["fp8-default"])).data["parameters"]
    assert parameters == {**plain, **expected}


def test_quick_test_on_the_embedded_engine_compares_two_candidates():
    composition = compose(TaskContext(profiles=["quick-test"]))
    assert composition.layers == [
        "base-model",
        "base-optimization",
        "process-defaults",
        "sim-defaults",
        "profile:quick-test:quick-test-params",
    ]
    assert composition.data["parameters"] == {
        "tp-size": [1],
        "mem-fraction-static": [0.85],
        "enable-chunked-prefill": [True, False],
    }
    assert composition.experiment.model.id_or_path == "llama-3.1-8b"


def test_strict_latency_is_stricter_than_balanced_and_that_than_high_throughput():
    for model in ("llama-3.1-8b", "llama-3.1-70b", "deepseek-r1"):
        slos = [
            {
                term.name: term.threshold
                for term in composed(
                    slo_config=name, user_overrides={"model": {"id_or_path": model}}
                ).experiment.slo.terms
            }
            for name in ("strict-latency", "balanced", "high-throughput")
        ]
        assert all(set(slo) == {"ttft", "tpot", "latency.p90"} for slo in slos)
        for tighter, looser in pairwise(slos):
            assert all(tighter[name] < looser[name] for name in tighter)


def test_a_named_slo_knows_the_size_of_the_model():
    small = composed(slo_config="strict-latency")
    large = compose(
        TaskContext(
            model_name="Llama-3.1-70B", base_runtime="sglang", deployment_mode="docker", slo_config="strict-latency"
        )
    )
    assert small.layers[-3:] == ["slo:base", "slo:base-text-to-text", "slo:strict-latency"]
    assert large.layers[-1] == "slo:strict-latency-large-model"
    assert large.data["slo"]["tpot"]["threshold"] > small.data["slo"]["tpot"]["threshold"]
    assert large.data["slo"]["tpot"]["weight"] == small.data["slo"]["tpot"]["weight"]


PLACES = [("sim", "process"), *itertools.product(("vllm", "sglang", "trtllm"), ("process", "docker"))]


@pytest.mark.parametrize(("runtime", "mode"), PLACES)
@pytest.mark.parametrize("profile", GOLDEN)
def test_every_profile_can_be_used_as_it_stands_on_any_engine_and_any_number_of_gpus(profile, runtime, mode):
    chosen = engine(runtime)
    for gpus in (1, 2, 4, 8):
        context = TaskContext(
            model_name="llama-3.1-8b",
            base_runtime=runtime,
            deployment_mode=mode,
            profiles=[profile],
            gpu_type="H100",
            total_gpus=gpus,
        )
        composition = compose(context)
        experiment = composition.experiment
        assert experiment.deployment.mode == mode
        assert max(size for size in experiment.parameters["tp-size"] if isinstance(size, int)) <= gpus
        assert all(warning.startswith("tp-size ") for warning in composition.warnings)
        chosen.check_parameters(experiment.parameters)
        target, rules = LaunchContext.from_experiment(experiment), Rules.from_experiment(experiment)
        space = Space(runtime, experiment.parameters, partial(chosen.rejection_reason, context=target), rules)
        assert space.candidates
        assert space.refusals == ()


@pytest.mark.parametrize(
    ("preset", "model", "is_applied"),
    [
        ("dense-model", "Qwen/Qwen2.5-72B-Instruct", True),
        ("dense-model", "meta-llama/Llama-3.1-8B", True),
        ("dense-model", "Qwen/Qwen3-30B-A3B", False),
        ("moe-model", "Qwen/Qwen3-30B-A3B", True),
        ("moe-model", "openai/gpt-oss-120b", True),
        ("moe-model", "deepseek-ai/DeepSeek-V3", False),
        ("mla-model", "deepseek-ai/DeepSeek-V3", True),
        ("mla-model", "moonshotai/Kimi-K2-Instruct", True),
        ("mla-model", "Qwen/Qwen3-8B", False),
    ],
)
def test_a_preset_for_a_family_applies_to_the_models_of_the_family(preset, model, is_applied):
    composition = compose(TaskContext(model_name=model, base_runtime="sglang", layers=[preset]))
    assert (preset in composition.layers) == is_applied


@pytest.mark.parametrize("runtime", ["vllm", "sglang", "trtllm"])
def test_the_preset_for_latent_attention_has_candidates_on_eight_gpus(runtime):
    context = TaskContext(model_name="deepseek-r1", base_runtime=runtime, layers=["mla-model"], total_gpus=8)
    experiment = compose(context).experiment
    target = LaunchContext.from_experiment(experiment)
    space = Space(runtime, experiment.parameters, partial(engine(runtime).rejection_reason, context=target))
    assert any(candidate.parallelism.gpus == 8 for candidate in space.candidates)
