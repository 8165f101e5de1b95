"""TensorRT-LLM: `trtllm-serve serve MODEL --flags`, and a file of options for what has no flag."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from autotuner.core import Candidate, FailureKind, ServerSpec
from autotuner.engines import installed
from autotuner.engines import model as models
from autotuner.engines.commandline import CommandLineEngine
from autotuner.engines.diagnosis import COMMON_RULES, FailureRule
from autotuner.engines.flags import FlagTable, bundled_table
from autotuner.engines.parameters import canonical_parameters
from autotuner.engines.protocol import LaunchContext
from autotuner.errors import MachineError
from autotuner.experiment import Model, Runtime

OPTIONS_VARIABLE = "TRTLLM_SERVE_OPTIONS"
"""The variable that carries the options file, so that the command is complete without one on disk."""

OPTIONS_WRAPPER = f'exec "$0" "$@" --extra_llm_api_options <(printf %s "${OPTIONS_VARIABLE}")'
"""What bash runs: the command that follows, with the variable as the file it reads once."""

SERVED_NAME_FLAG = "--served_model_name"


class Trtllm(CommandLineEngine):
    """TensorRT-LLM as a process or in its own image; its flags are from its documentation."""

    name = "trtllm"
    program = "trtllm-serve"
    expected_start_seconds = 240.0
    reserved_flags = ("--host", "--port", SERVED_NAME_FLAG, "--config")
    log_patterns: ClassVar[Mapping[str, str]] = {
        "version": r"TensorRT[- ]LLM version: (\d+\.\d+[\w.]*)",
        "kv_tokens": r"for max tokens in paged KV cache \((\d+)\)",
    }
    failure_rules = (
        FailureRule(
            r"[Ii]nsufficient (GPU )?memory|No enough memory|too small to fit|maxNbTokens.*\b0\b.*KV cache",
            FailureKind.OUT_OF_MEMORY_AT_START,
            None,
            "Too little memory is left for the KV cache: raise mem-fraction-static, lower max-model-len, or raise"
            " tp-size.",
        ),
        *COMMON_RULES,
    )

    def not_installed_error(self, runtime: Runtime) -> MachineError:
        """TensorRT-LLM mostly comes as an image."""
        missing = runtime.executable or self.program
        return MachineError(
            f"TensorRT-LLM is not installed: there is no executable '{missing}'"
            + ("." if runtime.executable else " on PATH."),
            remedy="Use --deployment docker, or --set runtime.executable=/path/to/bin/trtllm-serve.",
        )

    def flags(self, runtime: Runtime | None = None) -> FlagTable:
        """Those of the TensorRT-LLM at hand, else the documented ones."""
        known = bundled_table(self.name)
        found = installed.find_executable(runtime.executable, self.program) if runtime else None
        if found is None:
            return known
        files = [*installed.dist_info_folders(found, "tensorrt_llm-*"), Path(found)]
        return installed.read_flags((found, "serve", "--help"), files, known) or known

    def native_flag(self, name: str) -> str:
        """Its flags are written with underscores."""
        return "--" + name.replace("-", "_")

    def model_arguments(self, model: Model) -> tuple[str, ...]:
        """The model comes first; without a served name it would serve the folder's last part."""
        revision = ("--revision", model.revision) if model.revision else ()
        tokenizer = ("--tokenizer", model.tokenizer) if model.tokenizer else ()
        location = models.path_or_name(model)
        served = (SERVED_NAME_FLAG, model.served_name or location) if self._supports_served_name else ()
        return (location, *served, *revision, *tokenizer)

    def server_spec(self, candidate: Candidate, context: LaunchContext) -> ServerSpec:
        """The command; options without a flag travel in a variable that bash hands over as a file."""
        spec = super().server_spec(candidate, context)
        if not self._supports_served_name and models.is_path(context.model.id_or_path):
            spec = replace(spec, served_model=Path(models.path_or_name(context.model)).name)
        options = llm_api_options(candidate)
        if not options:
            return spec
        wrapped = ("-c", OPTIONS_WRAPPER)
        before = (context.runtime.executable,) if spec.entrypoint else ()
        inside = (*before, *spec.container_argv)
        return replace(
            spec,
            argv=("bash", *wrapped, *spec.argv),
            container_argv=(*(() if spec.entrypoint else ("bash",)), *wrapped, *(word for word in inside if word)),
            entrypoint="bash" if spec.entrypoint else None,
            env={OPTIONS_VARIABLE: json.dumps(options), **spec.env},
        )

    @property
    def _supports_served_name(self) -> bool:
        """Whether this version can be told what to serve the model as."""
        return (self._flag_table or bundled_table(self.name)).find(SERVED_NAME_FLAG) is not None

    def image_command(self, executable: str | None = None) -> tuple[str, ...]:
        """What runs inside the image."""
        return (executable or "trtllm-serve", "serve")


def llm_api_options(candidate: Candidate) -> dict[str, Any]:
    """The options file of a candidate: every parameter that has a path in it and a value."""
    options: dict[str, Any] = {}
    for name, value in candidate.parameters.items():
        row = canonical_parameters().get(name)
        path = row.for_engine("trtllm").config if row else None
        if path is None or value is None:
            continue
        *above, key = path.split(".")
        place = options
        for part in above:
            place = place.setdefault(part, {})
        # graphs have a section of settings, and none of them is off
        place[key] = ({} if value else None) if key == "cuda_graph_config" else value
    return options
