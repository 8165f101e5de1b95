"""TensorRT-LLM's command, which carries a file of options."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from autotuner.core import Candidate, Value
from autotuner.deploy import render
from autotuner.engines import LaunchContext, engine
from autotuner.engines.flags import FlagTable, bundled_table
from autotuner.engines.trtllm import OPTIONS_VARIABLE, Trtllm, llm_api_options
from autotuner.errors import ConfigError
from autotuner.experiment import Model, Runtime

TABLE: dict[str, Value] = {
    "kv-block-size": 64,
    "kv-cache-dtype": "fp8",
    "prefix-caching": False,
    "cuda-graph": False,
    "enable-chunked-prefill": True,
    "tp-size": 2,
}


def test_its_flags_are_marked_as_documented() -> None:
    assert str(bundled_table("trtllm")) == "the flags of trtllm 1.2 as documented"


def test_what_has_no_flag_goes_into_the_options() -> None:
    assert llm_api_options(Candidate("trtllm", TABLE)) == {
        "kv_cache_config": {"tokens_per_block": 64, "dtype": "fp8", "enable_block_reuse": False},
        "cuda_graph_config": None,
        "enable_chunked_prefill": True,
    }
    assert llm_api_options(Candidate("trtllm", {"cuda-graph": True, "kv-cache-dtype": None})) == {
        "cuda_graph_config": {}
    }


def test_without_options_the_command_is_plain(installed: Path, model: Model) -> None:
    spec = engine("trtllm").server_spec(Candidate("trtllm", {"tp-size": 2}), LaunchContext(model))
    assert spec.argv[:3] == (str(installed / "trtllm-serve"), "serve", model.id_or_path)
    assert spec.argv[-2:] == ("--tp_size", "2")


@pytest.mark.processes
@pytest.mark.parametrize("container", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_the_printed_command_hands_the_options_over_as_a_file(
    tmp_path: Path, model: Model, container: bool, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command runs as it is printed, with a program in the engine's place that repeats what it was given."""
    program = tmp_path / "trtllm-serve"
    program.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\ncat "${@: -1}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    runtime = Runtime(image="i", executable=str(program) if own else None)
    candidate = Candidate("trtllm", TABLE)
    spec = engine("trtllm").server_spec(candidate, LaunchContext(model, runtime=runtime, container=container))
    output = subprocess.run(["sh", "-c", render(spec, "shell")], capture_output=True, text=True, check=True).stdout
    *words, options = output.splitlines()
    assert words[:2] == ["serve", model.id_or_path]
    assert words[-2] == "--extra_llm_api_options"
    assert json.loads(options) == llm_api_options(candidate)
    inside = [spec.entrypoint, *spec.container_argv] if spec.entrypoint else spec.container_argv
    assert not container or tuple(inside) == spec.argv
    assert json.loads(spec.env[OPTIONS_VARIABLE]) == llm_api_options(candidate)


def test_a_version_that_cannot_name_its_model_serves_the_last_part_of_the_folder(model: Model) -> None:
    old = bundled_table("trtllm")
    without = FlagTable("trtllm", "old", {name: flag for name, flag in old.flags.items() if "served" not in name})
    subject = Trtllm()
    subject.check_parameters({}, Runtime(image="i"), without)
    spec = subject.server_spec(Candidate("trtllm"), LaunchContext(model, container=True))
    assert spec.served_model == Path(model.id_or_path).name
    assert "--served_model_name" not in spec.argv


def test_an_option_outside_its_choices_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Unknown value 'int4'; choose from: auto, fp8, nvfp4"):
        engine("trtllm").check_parameters({"kv-cache-dtype": ["int4"]})
