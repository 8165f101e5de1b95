"""runtime.extra_args, read as each engine's own parser reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autotuner.core import Candidate, Value
from autotuner.engines import LaunchContext, engine
from autotuner.engines.context_limit import context_limit
from autotuner.engines.flags import bundled_table
from autotuner.engines.vllm import Vllm
from autotuner.errors import ConfigError
from autotuner.experiment import Model, Runtime


def check(runtime: str, *extra_args: str, parameters: dict[str, list[Value]] | None = None) -> None:
    """The checks of a run, against the bundled flags."""
    subject = engine(runtime)
    subject.check_parameters(parameters or {}, Runtime(extra_args=extra_args), subject.flags())


@pytest.mark.parametrize(
    ("arguments", "flag", "key", "value"),
    [
        (["--max-num-seqs", "8"], "--max-num-seqs", "", 8),
        (["--max_num_seqs=8"], "--max-num-seqs", "", 8),
        (["--max-num-se", "8"], "--max-num-seqs", "", 8),
        (["-tp", "1"], "--tensor-parallel-size", "", 1),
        (["-tp=1"], "--tensor-parallel-size", "", 1),
        (["-n2"], "--nnodes", "", 2),
        (["-qfp8"], "--quantization", "", "fp8"),
        (["-O3"], "--optimization-level", "", "3"),
        (["-O=3"], "--optimization-level", "", "3"),
        (["-O", "3"], "--optimization-level", "", "3"),
        (["--enable_prefix_caching"], "--enable-prefix-caching", "", True),
        (["--no_enable_prefix_caching"], "--enable-prefix-caching", "", False),
        (["--no-enable-prefix-caching"], "--enable-prefix-caching", "", False),
        (["--compilation-config.mode", "3"], "--compilation-config", "mode", "3"),
        (["--compilation_config.pass_config.fuse_norm=true"], "--compilation-config", "pass_config.fuse_norm", "true"),
        (["-cc.mode=3"], "--compilation-config", "mode", "3"),
        (["-cc.custom_ops+", "none,+quant_fp8"], "--compilation-config", "custom_ops", "none,+quant_fp8"),
        (["--compilation-config", '{"mode": 3}'], "--compilation-config", "", '{"mode": 3}'),
        (["--max-model-len", "8k"], "--max-model-len", "", "8k"),
        (["--seed", "-1"], "--seed", "", -1),
        (["--chat-template", "{{ a }} --b"], "--chat-template", "", "{{ a }} --b"),
        (["--cudagraph-capture-sizes", "1", "2", "4"], "--cudagraph-capture-sizes", "", "1 2 4"),
        (["--max-num-seqs", "None"], "--max-num-seqs", "", None),
    ],
)
def test_vllm_takes_every_spelling_of_its_own_parser(arguments: list[str], flag: str, key: str, value: Value) -> None:
    (argument,) = Vllm.argument_syntax.parse(arguments, bundled_table("vllm"))
    assert (argument.flag.name, argument.key, argument.value) == (flag, key, value)


@pytest.mark.parametrize(
    ("runtime", "arguments", "message"),
    [
        ("vllm", ["--nonsense-flag", "1"], "Unknown vllm flag '--nonsense-flag'"),
        ("vllm", ["--max-num", "4"], "Unknown vllm flag '--max-num'"),
        ("vllm", ["--max-model-len 8192"], "is one argument with a space in it"),
        ("vllm", ["--max-model-len"], "--max-model-len in runtime.extra_args needs a value"),
        ("vllm", ["--max-model-len", "--enforce-eager"], "--max-model-len in runtime.extra_args needs a value"),
        ("vllm", ["--enforce-eager", "true"], "'true' after --enforce-eager"),
        ("vllm", ["--enforce-eager=true"], "--enforce-eager is a switch"),
        ("vllm", ["some/model"], "'some/model' in runtime.extra_args is neither a flag"),
        ("vllm", ["--dtype", "fp42"], r"--dtype in runtime.extra_args: Unknown value 'fp42'"),
        ("vllm", ["--max-num-seqs", "many"], 'takes a whole number, not "many"'),
        ("vllm", ["--gpu-memory-utilization", "90%"], 'takes a number, not "90%": write 0.9'),
        ("vllm", ["--compilation-config", "{mode: 3}"], "takes JSON text"),
        ("vllm", ["--seed.x", "3"], "takes a whole number, and has no key 'x'"),
        ("vllm", ["-Ofast"], "takes an optimization level such as 3, not 'fast'"),
        ("vllm", ["-O"], "-O in runtime.extra_args needs a value"),
        ("vllm", ["--model", "x"], "--model cannot be set by"),
        ("vllm", ["--served_model_name=x"], "--served-model-name cannot be set by"),
        ("vllm", ["--por", "9"], "--port cannot be set by"),
        ("vllm", ["-tp", "4"], r"-tp cannot be set by runtime.extra_args.*parameters.tp-size=\[4\]"),
        ("vllm", ["--api_key", "x"], "is a secret"),
        ("sglang", ["--tp_size", "1"], "Unknown sglang flag '--tp_size'"),
        ("sglang", ["--model", "x"], "--model-path cannot be set by"),
        ("sglang", ["--dtype", "fp42"], "Unknown value 'fp42'"),
        ("trtllm", ["--max_batch", "8"], "Unknown trtllm flag '--max_batch'"),
        ("trtllm", ["--max-batch-size", "8"], "Unknown trtllm flag '--max-batch-size'"),
        ("sim", ["--max-running", "8"], "Unknown sim flag '--max-running'"),
        ("sim", ["--kv-cache-dtype", "fp9"], "Unknown value 'fp9'"),
    ],
)
def test_what_an_engines_parser_refuses_is_refused_before_a_launch(
    runtime: str, arguments: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check(runtime, *arguments)


@pytest.mark.parametrize(
    ("parameters", "arguments"),
    [
        ({"max-running-requests": [8]}, ["--max_num_seqs", "8"]),
        ({"max-running-requests": [8]}, ["--max-num-se=8"]),
        ({"prefix-caching": [True]}, ["--no-enable-prefix-caching"]),
        ({"compilation-config.mode": [3]}, ["-cc.mode=2"]),
        ({"compilation-config.mode": [3]}, ["-cc", "{}"]),
        ({"optimization-level": [3]}, ["-O2"]),
    ],
)
def test_an_argument_and_a_parameter_do_not_set_the_same(parameters: dict[str, list[Value]], arguments) -> None:
    with pytest.raises(ConfigError, match=r"(\S+) and runtime.extra_args .* both set "):
        check("vllm", *arguments, parameters=parameters)


def test_two_keys_of_one_json_value_may_be_set_apart() -> None:
    check(
        "vllm",
        "-cc.cudagraph_mode=NONE",
        parameters={"compilation-config.mode": [3], "compilation-config.debug_dump_path": ["x"]},
    )


def test_the_number_of_gpus_may_be_said_as_one() -> None:
    check("vllm", "--tensor_parallel_size=1", "-pp", "1")


# what vLLM's own checks of its configuration refuse


Parameters = dict[str, Value]


def rejection(model: Model, parameters: Parameters, *extra_args: str, env: dict[str, str] | None = None) -> str:
    context = LaunchContext(model, Runtime(extra_args=extra_args, env=env or {}))
    return engine("vllm").rejection_reason(Candidate("vllm", parameters), context) or ""


@pytest.fixture
def long_model(tmp_path: Path) -> Model:
    return model_with(tmp_path, max_position_embeddings=4096)


def model_with(folder: Path, **config: object) -> Model:
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": 8} | config))
    context_limit.cache_clear()
    return Model(id_or_path=str(folder))


def test_steps_too_small_for_a_whole_prompt_are_refused_without_chunked_prefill(long_model: Model) -> None:
    off: Parameters = {"enable-chunked-prefill": False}
    step: Parameters = {"max-batched-tokens": 2048}
    assert "2048 is below max-model-len 4096, and chunked prefill is off" in rejection(long_model, off | step)
    assert rejection(long_model, step) == ""
    assert rejection(long_model, off) == ""
    assert rejection(long_model, off | step | {"max-model-len": 2048}) == ""
    for argument in ("--no-enable-chunked-prefill", "--no_enable_chunked_prefill"):
        assert "chunked prefill is off" in rejection(long_model, step, argument)
    assert "chunked prefill is off" in rejection(long_model, off, "--max-num-batched-tokens=2k")
    assert "chunked prefill is off" in rejection(long_model, {"enable_chunked_prefill": False} | step)


def test_steps_too_small_for_the_running_requests_are_refused(long_model: Model) -> None:
    step: Parameters = {"max-batched-tokens": 128}
    assert "128 is below max-running-requests 256" in rejection(long_model, step | {"max-running-requests": 256})
    assert rejection(long_model, step | {"max-running-requests": 128}) == ""


def test_a_context_above_the_models_positions_is_refused(long_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    too_long: Parameters = {"max-model-len": 8192}
    monkeypatch.delenv("VLLM_ALLOW_LONG_MAX_MODEL_LEN", raising=False)
    assert "max-model-len 8192 is above the 4096 positions of the model" in rejection(long_model, too_long)
    assert "is above the 4096 positions" in rejection(long_model, {}, "--max_model_len", "8K")
    assert rejection(long_model, {"max-model-len": 4096}) == ""
    assert rejection(long_model, {}, "--max-model-len", "auto") == ""
    assert rejection(long_model, too_long, env={"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}) == ""
    assert rejection(long_model, too_long, "--hf-overrides", "{}") == ""
    assert rejection(long_model, too_long, "--hf-overrides.max_position_embeddings=8192") == ""
    monkeypatch.setenv("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")
    assert rejection(long_model, too_long) == ""


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"text_config": {"max_position_embeddings": 4096}}, 4096),
        ({"max_position_embeddings": 4096, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 4096),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2.0}}, 8192),
        (
            {
                "max_position_embeddings": 4096,
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048},
            },
            8192,
        ),
        ({"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 4096),
        ({"max_position_embeddings": 4096, "rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, None),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "dynamic"}}, None),
        ({"max_position_embeddings": 4096, "model_max_length": 8192}, None),
        ({}, None),
    ],
)
def test_the_longest_context_is_read_from_the_model(config: dict[str, object], limit: int | None, tmp_path) -> None:
    assert context_limit(model_with(tmp_path, **config)) == limit


def test_the_longest_context_of_a_model_that_is_not_here_is_not_known() -> None:
    assert context_limit(Model(id_or_path="org/not-here")) is None
