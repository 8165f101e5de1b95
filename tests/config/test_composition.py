import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.config import ConfigLayer, TaskConfigFactory, TaskContext, compose, leaves
from autotuner.config.overrides import Overrides
from autotuner.errors import ConfigError
from autotuner.experiment import Experiment


def register(name, data, condition=None):
    TaskConfigFactory.register_profile(name, [ConfigLayer("params", data, condition)])


def test_the_python_example_works_as_written():
    ctx = TaskContext(
        model_name="llama-3-2-1b-instruct",
        base_runtime="sglang",
        deployment_mode="docker",
        benchmark_task="text-to-text",
        traffic_scenarios=["D(100,100)"],
        num_concurrency=[1, 4, 8],
        optimization_strategy="grid_search",
        optimization_objective="minimize_latency",
        profiles=["low-latency", "production"],
        user_overrides={"parameters": {"tp-size": [2]}},
    )
    config, layers = TaskConfigFactory.create(ctx)
    assert layers == [
        "base-model",
        "base-optimization",
        "docker-defaults",
        "sglang-defaults",
        "profile:low-latency:low-latency-params",
        "profile:production:production-params",
        "user_patch",
    ]
    assert config["parameters"]["tp-size"] == [2]
    assert config["parameters"]["mem-fraction-static"] == [0.7, 0.8]
    assert config["optimization"]["max_iterations"] == 30
    assert config["task_name"] == "llama-3-2-1b-instruct_grid_search"
    assert json.loads(json.dumps(config)) == config
    Experiment.model_validate(config)


def test_profiles_are_applied_in_the_order_given():
    one = compose(TaskContext(profiles=["balanced", "quick-test"])).data["benchmark"]["num_concurrency"]
    other = compose(TaskContext(profiles=["quick-test", "balanced"])).data["benchmark"]["num_concurrency"]
    assert (one, other) == ([1], [4, 8, 16])


def test_the_context_fills_the_base_and_a_profile_wins_over_it():
    composition = compose(
        TaskContext(num_concurrency=[3], traffic_scenarios=["D(7,7)"], optimization_objective="minimize_ttft")
    )
    assert composition.data["benchmark"]["num_concurrency"] == [3]
    assert composition.data["optimization"]["objective"] == "minimize_ttft"
    assert composition.provenance["benchmark.num_concurrency"] == "base-optimization"
    profiled = compose(TaskContext(num_concurrency=[3], profiles=["balanced"]))
    assert profiled.data["benchmark"]["num_concurrency"] == [4, 8, 16]


def test_every_value_has_a_row_with_its_layer_and_place():
    composition = compose(TaskContext(profiles=["quick-test"]))
    rows = {row.path: row for row in composition.resolved_values()}
    assert leaves(composition.data).keys() <= rows.keys()
    assert rows["optimization.max_iterations"].layer == "profile:quick-test:quick-test-params"
    assert rows["optimization.max_iterations"].place.endswith("quick-test.yaml:11:9")
    assert (rows["benchmark.duration"].value, rows["benchmark.duration"].layer) == (20.0, "default")
    assert rows["slo.attainment"].value == 0.95


def test_a_value_keeps_what_it_overrode_latest_first():
    overrides = {"optimization": {"max_iterations": 3}, "parameters": {"mem-fraction-static": None}}
    composed = compose(TaskContext(profiles=["quick-test", "balanced"], user_overrides=overrides))
    earlier = composed.overridden_values["optimization.max_iterations"]
    assert [(row.value, row.layer.partition(":")[0]) for row in earlier] == [
        (15, "profile"),
        (2, "profile"),
        (10, "base-optimization"),
    ]
    assert earlier[0].place.endswith("balanced.yaml:11:9")
    assert composed.overridden_values["model.namespace"] == []
    assert "parameters.mem-fraction-static" not in composed.overridden_values
    assert composed.overridden_values.keys() == composed.provenance.keys()


def test_the_strategy_in_the_name_is_the_one_that_is_used():
    assert (
        compose(TaskContext(user_overrides={"optimization": {"strategy": "random"}}))
        .data["task_name"]
        .endswith("_random")
    )


def test_a_profile_that_names_its_engine_brings_that_engines_layers():
    register("on-vllm", {"base_runtime": "vllm", "model": {"id_or_path": "m"}, "deployment": {"mode": "docker"}})
    composition = compose(TaskContext(profiles=["on-vllm"]))
    assert composition.layers == [
        "base-model",
        "base-optimization",
        "docker-defaults",
        "vllm-defaults",
        "profile:on-vllm:params",
    ]
    assert not any("as requested" in warning for warning in composition.warnings)


def test_what_the_caller_names_beats_a_profile_with_a_warning():
    register("on-vllm", {"base_runtime": "vllm", "model": {"id_or_path": "theirs"}})
    composition = compose(TaskContext(profiles=["on-vllm"], base_runtime="sglang", model_name="mine"))
    assert composition.experiment.base_runtime == "sglang"
    assert composition.experiment.model.id_or_path == "mine"
    assert "sglang-defaults" in composition.layers
    assert composition.provenance["base_runtime"] == "context"
    assert any("base_runtime is sglang, as requested, not vllm" in warning for warning in composition.warnings)


def test_an_override_beats_what_the_caller_names():
    composition = compose(TaskContext(base_runtime="vllm", model_name="m", user_overrides={"base_runtime": "sglang"}))
    assert composition.experiment.base_runtime == "sglang"
    assert "sglang-defaults" in composition.layers
    assert "vllm-defaults" not in composition.layers


def test_a_layer_whose_condition_depends_on_another_layer_is_applied():
    register("a", {"hardware": {"gpu_type": "A100"}}, lambda context: context.base_runtime == "sim")
    register("b", {"optimization": {"seed": 5}}, lambda context: context.gpu_type == "A100")
    composition = compose(TaskContext(profiles=["b", "a"]))
    assert composition.experiment.optimization.seed == 5
    assert composition.experiment.simulate.gpu == "a100_sxm"


def test_layers_that_contradict_each_other_are_an_error():
    register("flip", {"hardware": {"gpu_type": "A100"}}, lambda context: context.gpu_type is None)
    with pytest.raises(ConfigError, match="contradict") as caught:
        compose(TaskContext(profiles=["flip"]))
    assert "profile:flip:params" in caught.value.why


@pytest.mark.parametrize(
    ("context", "what", "remedy"),
    [
        ({"base_runtime": "vlm"}, "Unknown runtime 'vlm'; did you mean 'vllm'?", "openai, sglang, sim, trtllm, vllm"),
        (
            {"deployment_mode": "doker"},
            "Unknown deployment 'doker'; did you mean 'docker'?",
            "docker, external, kubernetes, ome, process",
        ),
        ({"base_runtime": "vllm"}, "No model was named.", "--model"),
        ({"deployment_mode": "docker"}, "No runtime was named.", "--runtime"),
        (
            {"base_runtime": "sim", "deployment_mode": "docker"},
            "Deployment docker is missing runtime.image.",
            "process",
        ),
        (
            {"base_runtime": "sim", "deployment_mode": "external"},
            "Deployment external is missing deployment.url.",
            "--url",
        ),
        ({"slo_config": "strict-latncy"}, "Unknown SLO 'strict-latncy'; did you mean 'strict-latency'?", "path"),
        ({"layers": ["fp8-defalt"]}, "Unknown preset 'fp8-defalt'; did you mean 'fp8-default'?", "path"),
        ({"override_mode": "pach"}, "Unknown override mode 'pach'; did you mean 'patch'?", "replace"),
    ],
)
def test_what_does_not_exist_is_named_with_the_nearest_that_does(context, what, remedy):
    with pytest.raises(ConfigError) as caught:
        compose(TaskContext(**context))
    assert caught.value.what == what
    assert remedy in caught.value.remedy


def test_an_endpoint_that_runs_already_has_no_parameters_to_try():
    composition = compose(
        TaskContext(
            model_name="m",
            base_runtime="vllm",
            deployment_mode="external",
            profiles=["balanced"],
            user_overrides={"deployment": {"url": "http://localhost:1"}},
        )
    )
    assert composition.experiment.parameters == {}
    assert composition.provenance["parameters"] == "external-defaults"
    assert any(
        "not tried: enable-chunked-prefill, tp-size, mem-fraction-static" in warning for warning in composition.warnings
    )


def test_an_slo_given_as_a_mapping_is_laid_over_a_profiles():
    composition = compose(
        TaskContext(profiles=["production"], slo_config={"ttft": 0.3, "latency": {"p99": {"threshold": 9}}})
    )
    assert composition.layers[-1] == "slo_config"
    assert composition.data["slo"]["ttft"] == {"threshold": 0.3, "weight": 2.0}
    assert [term.name for term in composition.experiment.slo.terms] == ["ttft", "tpot", "latency.p90", "latency.p99"]


def test_an_slo_asked_for_by_name_yields_to_the_users_overrides():
    composition = compose(
        TaskContext(slo_config="strict-latency", user_overrides={"slo": {"ttft": {"threshold": 0.25}}})
    )
    assert composition.data["slo"]["ttft"] == {"threshold": 0.25, "weight": 2.0}


def test_an_slo_asked_for_by_name_holds_in_replace_mode_too():
    override = {
        "task_name": "t",
        "model": {"id_or_path": "m"},
        "base_runtime": "sim",
        "parameters": {"tp-size": 1},
        "benchmark": {"traffic_scenarios": ["D(1,2)"], "num_concurrency": [1]},
    }
    composition = compose(TaskContext(slo_config="balanced", override_mode="replace", user_overrides=override))
    assert composition.data["slo"]["ttft"]["threshold"] == 1.0
    assert composition.data["parameters"] == {"tp-size": [1]}
    assert composition.layers.index("user_replace") < composition.layers.index("slo:balanced")


@pytest.mark.parametrize(
    "text", ["ttft: 0.4\nlatency: {p90: 3}\n", "slo:\n  ttft: {threshold: 0.4}\n  latency: {p90: 3}\n"]
)
def test_an_slo_file_is_exactly_what_it_says(write, text):
    write("mine.yaml", text)
    composition = compose(TaskContext(slo_config="mine.yaml"))
    assert composition.data["slo"] == {"ttft": {"threshold": 0.4}, "latency": {"p90": {"threshold": 3}}}
    assert composition.layers[-1] == "slo:mine"
    assert composition.places["slo.latency.p90.threshold"].startswith("mine.yaml:")


def test_an_slo_file_with_an_unknown_metric_is_an_error_with_its_place(write):
    write("mine.yaml", "ttft: 1\ne2e: 3\n")
    with pytest.raises(ConfigError) as caught:
        compose(TaskContext(slo_config="mine.yaml"))
    assert "did you mean 'slo.latency'" in caught.value.what
    assert "mine.yaml:2:1" in caught.value.why


def test_an_slo_file_may_have_layers(write):
    write(
        "mine.yaml",
        "layers:\n"
        "  - {name: all, data: {slo: {ttft: 2}}}\n"
        "  - {name: big, when: {model: '*70b*'}, data: {slo: {ttft: 4}}}\n",
    )
    small, big = (compose(TaskContext(slo_config="mine.yaml", model_name=name)) for name in ("m-8b", "m-70b"))
    assert (small.layers[-1], big.layers[-1]) == ("slo:all", "slo:big")
    assert big.data["slo"] == {"ttft": {"threshold": 4}}


def test_the_composed_configuration_composes_to_itself():
    first = compose(TaskContext(profiles=["production"], slo_config="balanced", total_gpus=1))
    again = compose(TaskContext(override_mode="replace", user_overrides=first.data))
    assert again.data == first.data
    typed = compose(TaskContext(override_mode="replace", user_overrides=first.experiment.model_dump(mode="json")))
    assert typed.experiment == first.experiment


def test_the_callers_data_is_not_changed_by_composing_or_by_changing_the_result():
    overrides = {"parameters": {"tp-size": 2, "x": None}, "slo": {"ttft": 1}}
    register("mine", {"benchmark": {"num_concurrency": [5]}})
    context = TaskContext(profiles=["mine"], user_overrides=overrides)
    composition = compose(context)
    composition.data["parameters"]["tp-size"].append(3)
    composition.data["benchmark"]["num_concurrency"].append(6)
    assert overrides == {"parameters": {"tp-size": 2, "x": None}, "slo": {"ttft": 1}}
    assert compose(context).data["parameters"]["tp-size"] == [2]
    assert compose(context).data["benchmark"]["num_concurrency"] == [5]


PROFILES = ["quick-test", "balanced", "low-latency", "high-throughput", "cost-optimization", "production"]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["sglang", "vllm", "trtllm", "sim"]),
    st.sampled_from(["process", "ome"]),
    st.lists(st.sampled_from(PROFILES), max_size=3),
    st.sampled_from([None, "strict-latency", "balanced", "high-throughput"]),
    st.sampled_from([None, "H100", "A100", "RTX 4090"]),
    st.lists(st.sampled_from(["fp8-default", "float16-default", "h100", "a100", "consumer-gpu"]), max_size=2),
    st.sampled_from([None, 1, 2, 4, 8]),
)
def test_whatever_is_combined_every_leaf_has_an_applied_layer(runtime, mode, profiles, slo, gpu, presets, gpus):
    composition = compose(
        TaskContext(
            model_name="m",
            base_runtime=runtime,
            deployment_mode="process" if runtime == "sim" else mode,  # no layer gives it an image
            profiles=profiles,
            slo_config=slo,
            gpu_type=gpu,
            layers=presets,
            total_gpus=gpus,
        )
    )
    assert composition.provenance.keys() == leaves(composition.data).keys()
    assert set(composition.provenance.values()) <= {*composition.layers, "context"}
    assert composition.experiment.base_runtime == runtime
    assert composition.experiment.hardware.gpu_type == (
        gpu or next((p.upper() for p in reversed(presets) if p in ("h100", "a100")), None)
    )


def trace(write, *times):
    rows = ({"timestamp": time, "input_length": 5, "output_length": 5} for time in times)
    return f"file:{write('trace.jsonl', chr(10).join(map(json.dumps, rows)))}"


def test_a_traces_own_rate_is_read_into_the_configuration(write):
    load = {"traffic_scenarios": [trace(write, 7, 8, 17)], "request_rates": ["trace"], "num_concurrency": []}
    composition = compose(TaskContext(user_overrides={"benchmark": load}))
    assert composition.data["benchmark"]["recorded"] == [{"requests": 3, "seconds": 10.0}]
    assert composition.data["benchmark"]["arrival"] == "trace"
    assert composition.provenance["benchmark.recorded"] == "trace"
    assert composition.experiment.benchmark.request_rates == ("trace",)
    assert [point.rate for point in composition.experiment.workload().load_points] == [0.2]
    Path("trace.jsonl").unlink()
    again = Experiment.model_validate(composition.data)
    assert again.workload() == composition.experiment.workload()


@pytest.mark.parametrize(
    ("load", "message"),
    [
        ({"arrival": "poisson"}, "with the arrival 'poisson'"),
        ({"traffic_scenarios": ["D(5,5)"]}, r"Scenario 'D\(5,5\)' has no times to replay"),
        ({"traffic_scenarios": [7]}, "Scenario '7' has no times to replay"),
        ({"traffic_scenarios": ["file:nowhere.jsonl"]}, "'nowhere.jsonl' cannot be read"),
        ({"traffic_scenarios": None}, "traffic_scenarios"),
    ],
)
def test_a_rate_of_trace_that_cannot_be_had_is_explained(write, load, message):
    whole = {"traffic_scenarios": [trace(write, 7, 8)], "request_rates": ["trace"], "num_concurrency": []}
    with pytest.raises(ConfigError, match=message):
        compose(TaskContext(user_overrides={"benchmark": whole | load}))


def test_a_trace_whose_times_fall_back_has_no_rate_of_its_own(write):
    load = {"traffic_scenarios": [trace(write, 7, 5, 8)], "request_rates": ["trace"], "num_concurrency": []}
    with pytest.raises(ConfigError, match="no times that can be replayed"):
        compose(TaskContext(user_overrides={"benchmark": load}))


def test_a_trace_longer_than_the_window_is_a_warning(write):
    load = {"traffic_scenarios": [trace(write, 7, 8, 2007)], "request_rates": ["trace"], "num_concurrency": [1]}
    composition = compose(TaskContext(user_overrides={"benchmark": load}))
    assert any(
        "for 20 s of its 2,000 s: a duration of 2001 replays it whole" in message for message in composition.warnings
    )


def test_more_parameters_than_a_command_could_hold_are_refused():
    many = {f"compilation-config.key{number}": [1] for number in range(1_001)}
    with pytest.raises(ConfigError, match=r"has 1,0\d\d parameters"):
        compose(TaskContext(model_name="m", user_overrides={"parameters": many}))


def test_many_keys_are_composed_each_with_its_place():
    env = {f"KEY{number}": "1" for number in range(2_000)}
    overrides = Overrides({"runtime": {"env": env}}, {f"runtime.env.{name}": f"line of {name}" for name in env})
    composed = compose(TaskContext(model_name="m", user_overrides=overrides))
    assert composed.places["runtime.env.KEY1999"] == "line of KEY1999"
