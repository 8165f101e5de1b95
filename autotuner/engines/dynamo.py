"""The arguments of an engine that Dynamo runs: those of the engine itself, but for TensorRT-LLM."""

from __future__ import annotations

import json
from typing import Any

from autotuner.core import Candidate
from autotuner.engines import engine
from autotuner.engines.commandline import CommandLineEngine
from autotuner.engines.parameters import canonical_parameters
from autotuner.engines.trtllm import llm_api_options
from autotuner.errors import ConfigError
from autotuner.experiment import Runtime

BACKENDS = ("vllm", "sglang", "trtllm")

_LLM_API_NAMES = {
    "tp-size": "tensor_parallel_size",
    "pp-size": "pipeline_parallel_size",
    "ep-size": "moe_expert_parallel_size",
    "max-running-requests": "max_batch_size",
    "max-batched-tokens": "max_num_tokens",
    "max-model-len": "max_seq_len",
    "mem-fraction-static": "kv_cache_config.free_gpu_memory_fraction",
}
"""Where TensorRT-LLM's options file has what its command line has as flags."""


def dynamo_arguments(candidate: Candidate, runtime: Runtime | None = None) -> tuple[str, ...]:
    """The engine arguments of a Dynamo worker of this candidate: its parameters and runtime.extra_args.

    dynamo.vllm and dynamo.sglang take the engine's own flags; dynamo.trtllm takes an options file's
    content. ConfigError for an engine that Dynamo does not run, and for parameters it cannot be given.
    """
    runtime = runtime or Runtime()
    name = candidate.runtime
    if name not in BACKENDS:
        raise ConfigError(f"Dynamo does not run {name}.", remedy=f"Take one of {', '.join(BACKENDS)}.")
    if name == "trtllm":
        options = ("--override-engine-args", json.dumps(_llm_api_options(candidate)))
        return (*options, *runtime.extra_args)
    command_line = engine(name)
    assert isinstance(command_line, CommandLineEngine)
    return (*command_line.parameter_arguments(candidate, runtime), *runtime.extra_args)


def _llm_api_options(candidate: Candidate) -> dict[str, Any]:
    options = llm_api_options(candidate)
    for name, value in candidate.parameters.items():
        if value is None or _is_in_options_file(name):
            continue
        if name.replace("_", "-") == "enable-dp-attention":
            options["enable_attention_dp"] = value
            continue
        if name not in _LLM_API_NAMES:
            raise ConfigError(
                f"The parameter {name} has no place in the options of dynamo.trtllm.",
                remedy="Leave it out, or give Dynamo's own argument in runtime.extra_args.",
            )
        section, _, key = _LLM_API_NAMES[name].rpartition(".")
        target = options.setdefault(section, {}) if section else options
        target[key] = value
    return options


def _is_in_options_file(name: str) -> bool:
    parameter = canonical_parameters().get(name)
    return parameter is not None and parameter.for_engine("trtllm").config is not None
