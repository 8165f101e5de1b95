"""TensorRT-LLM: `trtllm-serve serve MODEL --flags`, with an options file for settings that have no flag."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from autotuner import model_files
from autotuner.core import Candidate, FailureKind, ServerSpec
from autotuner.engines import installed
from autotuner.engines.arguments import ArgumentSyntax
from autotuner.engines.commandline import CommandLineEngine
from autotuner.engines.diagnosis import LogDiagnosis
from autotuner.engines.failure_rules import COMMON_RULES, FailureRule
from autotuner.engines.flags import FlagTable, bundled_table
from autotuner.engines.parameters import canonical_parameters
from autotuner.engines.protocol import LaunchContext
from autotuner.errors import MachineError
from autotuner.experiment import Model, Runtime

OPTIONS_VARIABLE = "TRTLLM_SERVE_OPTIONS"
"""Environment variable with the content of the options file, so that the command needs no file on disk."""

OPTIONS_WRAPPER = f'exec "$0" "$@" --extra_llm_api_options <(printf %s "${OPTIONS_VARIABLE}")'
"""bash script that runs its arguments with the variable's content as an options file (process substitution)."""

SERVED_NAME_FLAG = "--served_model_name"


class Trtllm(CommandLineEngine):
    """TensorRT-LLM as a process or in its own image; its flags are from its documentation."""

    name = "trtllm"
    program = "trtllm-serve"
    expected_start_seconds = 240.0
    argument_syntax = ArgumentSyntax(abbreviations=False, joined=False)
    reserved_flags = ("--host", "--port", SERVED_NAME_FLAG, "--config")
    diagnosis = LogDiagnosis(
        rules=(
            FailureRule(
                r"[Ii]nsufficient (GPU )?memory|No enough memory|too small to fit|maxNbTokens.*\b0\b.*KV cache",
                FailureKind.OUT_OF_MEMORY_AT_START,
                None,
                "Too little memory is left for the KV cache: raise mem-fraction-static, lower max-model-len, or raise"
                " tp-size.",
            ),
            *COMMON_RULES,
        ),
        info_patterns={
            "version": r"TensorRT[- ]LLM version: (\d+\.\d+[\w.]*)",
            "kv_tokens": r"for max tokens in paged KV cache \((\d+)\)",
        },
    )

    def not_installed_error(self, runtime: Runtime) -> MachineError:
        missing = runtime.executable or self.program
        return MachineError(
            f"TensorRT-LLM is not installed: there is no executable '{missing}'"
            + ("." if runtime.executable else " on PATH."),
            remedy="Use --deployment docker, or --set runtime.executable=/path/to/bin/trtllm-serve.",
        )

    def flags(self, runtime: Runtime | None = None) -> FlagTable:
        """Flags of the installed TensorRT-LLM, else the documented ones."""
        bundled = bundled_table(self.name)
        executable = installed.find_executable(runtime.executable, self.program) if runtime else None
        if executable is None:
            return bundled
        files = [*installed.dist_info_folders(executable, "tensorrt_llm-*"), Path(executable)]
        return installed.read_flags((executable, "serve", "--help"), files, bundled) or bundled

    def native_flag(self, name: str) -> str:
        """TensorRT-LLM's flags are written with underscores."""
        return "--" + name.replace("-", "_")

    def model_arguments(self, model: Model) -> tuple[str, ...]:
        """The model as the first positional argument; by default it would be served as its folder's last part."""
        revision = ("--revision", model.revision) if model.revision else ()
        tokenizer = ("--tokenizer", model.tokenizer) if model.tokenizer else ()
        location = model_files.path_or_name(model)
        served_name = (SERVED_NAME_FLAG, model.served_name or location) if self._supports_served_name else ()
        return (location, *served_name, *revision, *tokenizer)

    def server_spec(self, candidate: Candidate, context: LaunchContext) -> ServerSpec:
        """The complete command; settings without a flag are in a variable that bash passes as a file."""
        spec = super().server_spec(candidate, context)
        if not self._supports_served_name and model_files.is_path(context.model.id_or_path):
            spec = replace(spec, served_model=Path(model_files.path_or_name(context.model)).name)
        return add_llm_api_options(spec, llm_api_options(candidate), context)

    @property
    def _supports_served_name(self) -> bool:
        """Whether this version has a flag for the served name."""
        return (self._flag_table or bundled_table(self.name)).find(SERVED_NAME_FLAG) is not None

    def image_command(self, executable: str | None = None) -> tuple[str, ...]:
        return (executable or "trtllm-serve", "serve")


def add_llm_api_options(spec: ServerSpec, options: Mapping[str, Any], context: LaunchContext) -> ServerSpec:
    """The server with an options file that has these options besides its own; they replace those of the same name."""
    present = json.loads(spec.env.get(OPTIONS_VARIABLE, "{}"))
    if not options:
        return spec
    env = {OPTIONS_VARIABLE: json.dumps({**present, **options}), **_without(spec.env, OPTIONS_VARIABLE)}
    if present:
        return replace(spec, env=env)
    script = ("-c", OPTIONS_WRAPPER)
    entrypoint = (context.runtime.executable,) if spec.entrypoint else ()
    container_command = (*entrypoint, *spec.container_argv)
    return replace(
        spec,
        argv=("bash", *script, *spec.argv),
        container_argv=(
            *(() if spec.entrypoint else ("bash",)),
            *script,
            *(word for word in container_command if word),
        ),
        entrypoint="bash" if spec.entrypoint else None,
        env=env,
    )


def _without(env: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in env.items() if key != name}


def llm_api_options(candidate: Candidate) -> dict[str, Any]:
    """The options file of a candidate: every parameter whose `config` is a dotted path in that file."""
    options: dict[str, Any] = {}
    for name, value in candidate.parameters.items():
        parameter = canonical_parameters().get(name)
        path = parameter.for_engine("trtllm").config if parameter else None
        if path is None or value is None:
            continue
        *sections, key = path.split(".")
        section = options
        for section_name in sections:
            section = section.setdefault(section_name, {})
        # cuda_graph_config is a section of settings; null turns CUDA graphs off
        section[key] = ({} if value else None) if key == "cuda_graph_config" else value
    return options
