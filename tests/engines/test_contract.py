"""What holds for how every engine is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotuner.core import Candidate, Value
from autotuner.engines import ENGINES, Engine, LaunchContext, engine
from autotuner.engines.commandline import CommandLineEngine
from autotuner.engines.parameters import canonical_parameters
from autotuner.errors import ConfigError, UsageError
from autotuner.experiment import Hardware, Model, Runtime

SAMPLES: dict[str, Value] = {
    "tp-size": 2,
    "pp-size": 2,
    "dp-size": 2,
    "ep-size": 1,
    "mem-fraction-static": 0.85,
    "max-running-requests": 64,
    "max-batched-tokens": 4096,
    "max-model-len": 2048,
    "kv-block-size": 16,
    "kv-cache-dtype": "fp8",
    "dtype": "bfloat16",
    "quantization": "fp8",
    "prefix-caching": False,
    "enable-chunked-prefill": True,
    "cuda-graph": False,
    "schedule-policy": "fcfs",
}


LAUNCHED = sorted(name for name in ENGINES if isinstance(engine(name), CommandLineEngine))


@pytest.fixture(params=sorted(ENGINES))
def any_engine(request: pytest.FixtureRequest) -> Engine:
    return engine(request.param)


@pytest.fixture(params=LAUNCHED)
def launchable(request: pytest.FixtureRequest, installed: object) -> Engine:
    return engine(request.param)


def spec_arguments(subject: Engine, model: Model, **parameters: Value) -> tuple[str, ...]:
    return subject.server_spec(Candidate(subject.name, parameters), LaunchContext(model, port=4321)).argv


def test_every_engine_has_the_name_it_is_registered_under(any_engine: Engine) -> None:
    assert ENGINES[any_engine.name]().name == any_engine.name


def test_only_the_simulated_engine_simulates(any_engine: Engine) -> None:
    assert (any_engine.source == "simulated") == (any_engine.name == "sim")


def test_no_engine_takes_a_parameter_it_does_not_know(any_engine: Engine) -> None:
    with pytest.raises(ConfigError, match="tp-sise"):
        any_engine.check_parameters({"tp-sise": [1]})


def test_an_unknown_runtime_is_named_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'vllm'"):
        engine("vlm")


def test_every_canonical_parameter_is_sampled_here() -> None:
    assert set(SAMPLES) == set(canonical_parameters())


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_canonical_parameter_is_taken_or_refused_with_a_reason(launchable: Engine, name: str) -> None:
    lacks = canonical_parameters()[name].by_engine[launchable.name].lacks
    if lacks is None:
        launchable.check_parameters({name: [SAMPLES[name], None]})
    else:
        with pytest.raises(ConfigError) as caught:
            launchable.check_parameters({name: [SAMPLES[name]]})
        assert caught.value.why == lacks
        assert caught.value.remedy


def test_every_flag_that_parameters_yaml_names_exists(launchable: Engine) -> None:
    table = launchable.flags()
    for parameter in canonical_parameters().values():
        for flag in parameter.by_engine[launchable.name].flags:
            assert table.find(flag), f"{launchable.name} has no {flag}, which {parameter.name} needs"


def test_an_unknown_parameter_is_named_with_the_nearest_one(launchable: Engine) -> None:
    with pytest.raises(ConfigError, match="did you mean 'tp-size'"):
        launchable.check_parameters({"tp-sise": [1]})


@pytest.mark.parametrize("value", [0, "two", 1.5, True])
def test_a_value_of_the_wrong_kind_is_refused(launchable: Engine, value: Value) -> None:
    with pytest.raises(ConfigError, match="'tp-size'"):
        launchable.check_parameters({"tp-size": [1, value]})


def test_a_value_outside_the_choices_is_refused(launchable: Engine) -> None:
    with pytest.raises(ConfigError, match=r"'kv-cache-dtype'.*Unknown value 'fp9'"):
        launchable.check_parameters({"kv-cache-dtype": ["fp9"]})


@pytest.mark.processes
def test_the_address_is_not_a_parameter(launchable: Engine) -> None:
    with pytest.raises(ConfigError, match="--port cannot be set"):
        launchable.check_parameters({"port": [8000]})
    with pytest.raises(ConfigError, match="--port cannot be set"):
        launchable.check_parameters({}, Runtime(extra_args=("--port=8000",)))


@pytest.mark.processes
def test_an_unknown_extra_argument_is_named(launchable: Engine) -> None:
    with pytest.raises(ConfigError, match="--hots"):
        launchable.check_parameters({}, Runtime(extra_args=("--hots", "x")))


@pytest.mark.processes
def test_one_flag_is_not_set_twice(launchable: Engine) -> None:
    flag = canonical_parameters()["tp-size"].by_engine[launchable.name].flag
    with pytest.raises(ConfigError, match="both set"):
        launchable.check_parameters({"tp-size": [1]}, Runtime(extra_args=(str(flag), "2")))


def test_the_command_names_the_model_and_the_port(launchable: Engine, model: Model) -> None:
    spec = launchable.server_spec(Candidate(launchable.name), LaunchContext(model, port=4321))
    assert model.id_or_path in spec.argv
    assert spec.argv[spec.argv.index("--port") + 1] == "4321"
    assert (spec.port, spec.served_model) == (4321, model.id_or_path)
    assert all(isinstance(word, str) for word in (*spec.argv, *spec.container_argv))


def test_the_same_candidate_gives_the_same_command(launchable: Engine, model: Model) -> None:
    settings: dict[str, Value] = {"tp-size": 2, "mem-fraction-static": 0.85, "prefix-caching": False}
    assert spec_arguments(launchable, model, **settings) == spec_arguments(launchable, model, **settings)


def test_every_parameter_of_a_candidate_is_in_its_command(launchable: Engine, model: Model) -> None:
    plain = spec_arguments(launchable, model)
    for name, value in SAMPLES.items():
        option = canonical_parameters()[name].by_engine[launchable.name]
        if option.lacks is None and option.arguments(value):
            with_it = spec_arguments(launchable, model, **{name: value})
            assert set(option.arguments(value)) <= set(with_it)
            assert len(with_it) > len(plain)


def test_none_leaves_the_choice_to_the_engine(launchable: Engine, model: Model) -> None:
    assert spec_arguments(launchable, model, **{"tp-size": None}) == spec_arguments(launchable, model)


def test_a_relative_model_folder_becomes_an_absolute_one(
    launchable: Engine, model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert model.id_or_path in spec_arguments(launchable, Model(id_or_path="./a model"))


def test_the_served_name_is_the_configured_one(launchable: Engine, model: Model) -> None:
    named = model.model_copy(update={"served_name": "tiny"})
    spec = launchable.server_spec(Candidate(launchable.name), LaunchContext(named))
    assert spec.served_model == "tiny"
    assert "tiny" in spec.argv


def test_a_container_gets_flags_a_model_and_an_open_address(launchable: Engine, model: Model) -> None:
    spec = launchable.server_spec(Candidate(launchable.name), LaunchContext(model, runtime=Runtime(image="an/image:1")))
    assert spec.image == "an/image:1"
    assert model.id_or_path in spec.container_argv
    assert spec.container_argv[spec.container_argv.index("--host") + 1] == "0.0.0.0"
    assert [mount.container for mount in spec.mounts] == [model.id_or_path]


def test_a_token_is_handed_on_by_name_only(launchable: Engine, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    spec = launchable.server_spec(Candidate(launchable.name), LaunchContext(model))
    assert spec.secrets == ("HF_TOKEN",)
    assert "hf_verysecret" not in repr(spec)


def test_heads_that_do_not_divide_are_refused_beforehand(launchable: Engine, model: Model) -> None:
    reason = launchable.rejection_reason(Candidate(launchable.name, {"tp-size": 3}), LaunchContext(model))
    assert reason == "8 attention heads are not divisible by tp-size 3"
    assert launchable.rejection_reason(Candidate(launchable.name, {"tp-size": 4}), LaunchContext(model)) is None


def test_layers_need_not_divide_but_every_stage_has_one(launchable: Engine, model: Model) -> None:
    assert launchable.rejection_reason(Candidate(launchable.name, {"pp-size": 4}), LaunchContext(model)) is None
    reason = launchable.rejection_reason(Candidate(launchable.name, {"pp-size": 7}), LaunchContext(model))
    assert reason == "6 layers are fewer than pp-size 7"


def test_a_bundled_model_is_refused_like_a_folder(launchable: Engine) -> None:
    context = LaunchContext(Model(id_or_path="meta-llama/Llama-3.1-8B-Instruct"))
    reason = launchable.rejection_reason(Candidate(launchable.name, {"tp-size": 3}), context)
    assert reason == "32 attention heads are not divisible by tp-size 3"


def test_more_gpus_than_there_are_is_refused_beforehand(launchable: Engine, model: Model) -> None:
    context = LaunchContext(model, hardware=Hardware(total_gpus=2))
    reason = launchable.rejection_reason(Candidate(launchable.name, {"tp-size": 4}), context)
    assert reason == "it needs 4 GPUs and 2 may be used"


def test_a_model_that_is_not_here_yet_is_not_refused(any_engine: Engine) -> None:
    context = LaunchContext(Model(id_or_path="some-org/some-model"))
    assert any_engine.rejection_reason(Candidate(any_engine.name, {"tp-size": 3}), context) is None


def test_a_model_folder_that_is_not_there_is_an_error(launchable: Engine, tmp_path: object) -> None:
    with pytest.raises(ConfigError, match="no model folder"):
        launchable.check_model(Model(id_or_path=f"{tmp_path}/nothing"))
    with pytest.raises(ConfigError, match="not a model folder"):
        launchable.check_model(Model(id_or_path=str(tmp_path)))


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", "", f'{{"vocab_size": {"9" * 5000}}}', "\udcff"])
def test_a_config_json_that_no_engine_can_read_is_an_error(launchable: Engine, tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(ConfigError, match="cannot be read"):
        launchable.check_model(Model(id_or_path=str(tmp_path)))
