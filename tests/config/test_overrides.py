import pytest

from autotuner.config import TaskContext, compose, parse_set, read_overrides
from autotuner.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimization.max_iterations=5", {"optimization": {"max_iterations": 5}}),
        ("parameters.tp-size=[1, 2]", {"parameters": {"tp-size": [1, 2]}}),
        ("parameters.a.b=true", {"parameters": {"a.b": True}}),
        ("runtime.env.A=b=c", {"runtime": {"env": {"A": "b=c"}}}),
        ("slo.latency={p90: 5}", {"slo": {"latency": {"p90": 5}}}),
        ("description=", {"description": None}),
        ("benchmark.duration=1e1", {"benchmark": {"duration": 10.0}}),
        ("parameters.a={from: 1, to: 2, step: 1}", {"parameters": {"a": {"from": 1, "to": 2, "step": 1}}}),
        ("constraints.two=tp-size == 2", {"constraints": {"two": "tp-size == 2"}}),
        ('only_when.a.b=runtime == "sim"', {"only_when": {"a.b": 'runtime == "sim"'}}),
        ("model.id_or_path=meta-llama/Llama-3.1-8B", {"model": {"id_or_path": "meta-llama/Llama-3.1-8B"}}),
    ],
)
def test_a_setting_is_a_dotted_path_and_a_yaml_value(text, expected):
    assert parse_set(text) == expected


@pytest.mark.parametrize("text", ["", "a", "=1", "a..b=1", ".a=1"])
def test_a_setting_of_another_form_is_an_error_with_an_example(text):
    with pytest.raises(ConfigError, match="Cannot read --set") as caught:
        parse_set(text)
    assert "optimization.max_iterations=5" in caught.value.remedy


def test_a_setting_with_malformed_yaml_is_an_error():
    with pytest.raises(ConfigError, match=r"--set a:.*not valid YAML"):
        parse_set("a=[1")


def test_files_come_before_settings_and_later_ones_win(write):
    one = write("one.yaml", "optimization: {max_iterations: 1, seed: 1}\nbenchmark: {seed: 1}\n")
    two = write("two.yaml", "optimization:\n  max_iterations: 2\n")
    overrides = read_overrides([one, two], ["optimization.seed=3", "optimization.seed=4"])
    assert overrides == {"optimization": {"max_iterations": 2, "seed": 4}, "benchmark": {"seed": 1}}
    assert overrides.places == {
        "optimization.max_iterations": "two.yaml:2:3",
        "optimization.seed": "--set optimization.seed=4",
        "benchmark.seed": "one.yaml:2:13",
    }


def test_an_unknown_key_in_an_override_file_is_an_error_with_its_line(write):
    file = write("mine.yaml", "benchmark:\n  num_concurency: [1]\n")
    with pytest.raises(ConfigError) as caught:
        compose(TaskContext(user_overrides=read_overrides([file])))
    assert "did you mean 'num_concurrency'" in caught.value.what
    assert caught.value.why == "It comes from mine.yaml:2:3."


def test_a_wrong_value_in_a_setting_is_an_error_that_quotes_the_setting():
    with pytest.raises(ConfigError, match=r"max_iterations: .*--set optimization\.max_iterations=many"):
        compose(TaskContext(user_overrides=read_overrides(settings=["optimization.max_iterations=many"])))


def test_a_profile_given_as_an_override_file_is_an_error_that_says_so(write):
    file = write("mine.yaml", "name: mine\nlayers:\n  - {name: l, data: {}}\n")
    with pytest.raises(ConfigError, match="is a profile, not an override file") as caught:
        read_overrides([file])
    assert "--profile" in caught.value.remedy


def test_null_takes_back_a_parameter_and_an_slo_term():
    composition = compose(
        TaskContext(
            profiles=["production"],
            user_overrides=read_overrides(
                settings=["parameters.enable-chunked-prefill=null", "slo.latency=null", "slo.tpot="]
            ),
        )
    )
    assert set(composition.data["parameters"]) == {"tp-size", "mem-fraction-static"}
    assert [term.name for term in composition.experiment.slo.terms] == ["ttft"]
    assert not any("chunked" in path or "latency" in path for path in composition.provenance)


def test_nothing_given_is_no_layer():
    assert compose(TaskContext(user_overrides=read_overrides())).layers[-1] == "sim-defaults"


def test_a_range_replaces_a_range_as_a_whole_and_its_origin_is_told(write):
    file = write("one.yaml", "parameters:\n  mem-fraction-static: {from: 0.8, to: 0.95, step: 0.05}\n  tp-size: [1]\n")
    alone = compose(TaskContext(user_overrides=read_overrides([file])))
    assert alone.data["parameters"]["mem-fraction-static"] == [0.8, 0.85, 0.9, 0.95]
    assert alone.provenance["parameters.mem-fraction-static"] == "user_patch"
    assert alone.places["parameters.mem-fraction-static"] == "one.yaml:2:3"
    setting = "parameters.mem-fraction-static={from: 0.4, to: 0.8, factor: 2}"
    composition = compose(TaskContext(user_overrides=read_overrides([file], [setting])))
    assert composition.data["parameters"]["mem-fraction-static"] == [0.4, 0.8]
    assert composition.places["parameters.mem-fraction-static"] == f"--set {setting}"


def test_a_wrong_range_is_an_error_that_names_its_place(write):
    file = write("one.yaml", "parameters:\n  tp-size: {from: 4, to: 1, step: 1}\n")
    with pytest.raises(ConfigError) as caught:
        compose(TaskContext(user_overrides=read_overrides([file])))
    assert caught.value.what == "parameters.tp-size: 'from' of a range is above 'to'."
    assert caught.value.why == "It comes from one.yaml:2:3."
    assert "factor: 2" in caught.value.remedy


def test_the_gpu_limit_holds_for_a_range():
    composition = compose(
        TaskContext(total_gpus=2, user_overrides={"parameters": {"tp-size": {"from": 1, "to": 8, "factor": 2}}})
    )
    assert composition.data["parameters"]["tp-size"] == [1, 2]


RULES = """
name: mine
layers:
  - name: mine
    data:
      parameters: {tp-size: {from: 1, to: "{total_gpus}", factor: 2}}
      only_when: {enable-chunked-prefill: tp-size > 1}
      constraints: {small: tp-size < 4, two: tp-size == 2}
"""


def test_rules_of_layers_add_up_and_null_takes_one_or_all_of_them_back(write):
    write("profiles/mine.yaml", RULES)

    def rules(*settings):
        overrides = read_overrides(settings=settings)
        composition = compose(TaskContext(profiles=["mine"], total_gpus=4, user_overrides=overrides))
        return composition.experiment.only_when, composition.experiment.constraints, composition.provenance

    only_when, constraints, provenance = rules("constraints.even=tp-size % 2 == 0", "constraints.two=tp-size > 1")
    assert only_when == {"enable-chunked-prefill": "tp-size > 1"}
    assert constraints == {"small": "tp-size < 4", "two": "tp-size > 1", "even": "tp-size % 2 == 0"}
    assert provenance["constraints.small"] == "profile:mine:mine"
    assert provenance["constraints.two"] == "user_patch"
    assert rules("constraints.small=null", "only_when=null")[:2] == ({}, {"two": "tp-size == 2"})
    assert rules("constraints=")[1] == {}


def test_a_range_may_end_at_a_word(write):
    write("profiles/mine.yaml", RULES)
    assert compose(TaskContext(profiles=["mine"], total_gpus=4)).data["parameters"]["tp-size"] == [1, 2, 4]


@pytest.mark.parametrize(
    ("text", "value"), [("100", "100"), ("", ""), ("true", "true"), ('"1"', "1"), ("a: b", "a: b"), ("null", None)]
)
def test_variables_of_the_engine_are_text_whatever_they_look_like(text, value):
    assert parse_set(f"runtime.env.X={text}") == {"runtime": {"env": {"X": value}}}
