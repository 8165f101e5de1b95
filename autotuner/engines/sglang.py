"""SGLang: `sglang serve --model-path MODEL --flags`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from autotuner.core import Candidate, FailureKind, ServerSpec, Value
from autotuner.engines import installed
from autotuner.engines.commandline import CommandLineEngine
from autotuner.engines.diagnosis import LogDiagnosis
from autotuner.engines.failure_rules import COMMON_RULES, FailureRule
from autotuner.engines.flags import FlagTable, bundled_table
from autotuner.engines.protocol import LaunchContext
from autotuner.errors import MachineError
from autotuner.experiment import Model, Runtime

SERVER_MODULE = ("-m", "sglang.launch_server")

CPU_VARIABLE = "SGLANG_USE_CPU_ENGINE"
"""Environment variable with which SGLang computes on the CPU."""

CPU_INFO = Path("/proc/cpuinfo")


class Sglang(CommandLineEngine):
    """SGLang as a process or in its own image."""

    name = "sglang"
    program = "sglang"
    default_port = 30000
    expected_start_seconds = 120.0
    reserved_flags = (*CommandLineEngine.reserved_flags, "--model-path")
    diagnosis = LogDiagnosis(
        rules=(
            FailureRule(
                r"Not enough memory\. Please try to increase --mem-fraction-static"
                r"|leave no GPU memory for the KV cache",
                FailureKind.OUT_OF_MEMORY_AT_START,
                None,
                "The weights leave no room for the KV cache: raise mem-fraction-static, or spread over more GPUs.",
            ),
            *COMMON_RULES,
        ),
        info_patterns={
            "version": r"sglang[ =/-]v?(\d+\.\d+[\w.]*)",
            "kv_tokens": r"max_total_num_tokens=(\d+)",
        },
    )

    def not_installed_error(self, runtime: Runtime) -> MachineError:
        missing = runtime.executable or self.program
        return MachineError(
            f"SGLang is not installed: there is no executable '{missing}'"
            + ("." if runtime.executable else " on PATH."),
            remedy="Install SGLang in an environment of its own and give its `sglang` or `python` as --set"
            " runtime.executable=/path/to/bin/python, or use --runtime sim.",
        )

    def serve_command(self, program: str) -> tuple[str, ...]:
        """`sglang serve`, or SGLang's module when the program is a Python."""
        return (program, *SERVER_MODULE) if Path(program).name.startswith("python") else super().serve_command(program)

    def flags(self, runtime: Runtime | None = None) -> FlagTable:
        """Flags of the installed SGLang, else the bundled ones."""
        bundled = bundled_table(self.name)
        executable = installed.find_executable(runtime.executable, self.program) if runtime else None
        if executable is None or runtime is None:
            return bundled
        files = [*installed.dist_info_folders(executable, "sglang-*"), Path(executable)]
        return installed.read_flags((*self.base_command(runtime), "--help"), files, bundled) or bundled

    def rejection_reasons(self, candidate: Candidate, context: LaunchContext) -> Iterator[str]:
        """The reasons common to all engines, and two parameters that both set --chunked-prefill-size."""
        parameters = candidate.parameters
        if parameters.get("enable-chunked-prefill") is False and parameters.get("max-batched-tokens") is not None:
            yield "on SGLang max-batched-tokens is the chunked prefill size, so it needs enable-chunked-prefill"
        compiles = self.flag_value("--enable-torch-compile", candidate, context)
        if compiles and not self.computes_on_gpus(context) and not self._has_amx_kernels(context):
            yield "on a CPU without AMX SGLang's attention has no graphs, which enable-torch-compile needs"
        yield from super().rejection_reasons(candidate, context)

    def computes_on_gpus(self, context: LaunchContext) -> bool:
        """False where the server's environment or a flag says that SGLang computes on the CPU; see Engine."""
        inherited: Value = None if context.container else os.environ.get(CPU_VARIABLE)
        if str(context.runtime.env.get(CPU_VARIABLE, inherited)) == "1":
            return False
        devices = [arg.value for arg in self._extra_arguments(context.runtime) if arg.flag.name == "--device"]
        return "cpu" not in devices

    def _has_amx_kernels(self, context: LaunchContext) -> bool:
        """Whether a server can use AMX: by the CPU's flags and SGLang's CPU kernels; True for a container."""
        executable = installed.find_executable(context.runtime.executable, self.program)
        if context.container or executable is None or not CPU_INFO.is_file():
            return True
        has_kernels = any(
            any((folder.parent / "sgl_kernel").rglob("*.so"))
            for folder in installed.dist_info_folders(executable, "sglang-*")
        )
        return has_kernels and "amx_tile" in CPU_INFO.read_text()

    def server_spec(self, candidate: Candidate, context: LaunchContext) -> ServerSpec:
        """The complete command, with no GPUs where SGLang computes on the CPU."""
        spec = super().server_spec(candidate, context)
        return spec if self.computes_on_gpus(context) else replace(spec, gpus=0, devices=())

    def model_arguments(self, model: Model) -> tuple[str, ...]:
        """SGLang's own names for model and tokenizer."""
        names = {"--model": "--model-path", "--tokenizer": "--tokenizer-path"}
        return tuple(names.get(word, word) for word in super().model_arguments(model))

    def fixed_arguments(self, context: LaunchContext) -> tuple[str, ...]:
        """SGLang exports Prometheus counters only with --enable-metrics."""
        return ("--enable-metrics",)

    def image_command(self, executable: str | None = None) -> tuple[str, ...]:
        return (executable or "python3", *SERVER_MODULE)
