"""The simulated engine: a real HTTP server with computed step times."""

from __future__ import annotations

import sys
from dataclasses import replace

from autotuner import __version__, model_files
from autotuner.core import Candidate, Mount
from autotuner.engines.arguments import ArgumentSyntax
from autotuner.engines.commandline import CommandLineEngine
from autotuner.engines.diagnosis import LogDiagnosis
from autotuner.engines.flags import FlagTable, bundled_table
from autotuner.engines.protocol import LaunchContext
from autotuner.errors import MachineError
from autotuner.experiment import Model, Runtime

SERVER_MODULE = ("-m", "autotuner.simulate.server")


class Sim(CommandLineEngine):
    """autotune's own server, run by the Python that runs autotune."""

    name = "sim"
    program = "python3"
    source = "simulated"
    expected_start_seconds = 2.0
    argument_syntax = ArgumentSyntax(abbreviations=False)
    reserved_flags = (
        *CommandLineEngine.reserved_flags,
        "--model",
        "--gpu",
        "--seed",
        "--skew-seed",
        "--skew-sd",
        "--disaggregation-mode",
    )
    diagnosis = LogDiagnosis(
        info_patterns={
            "version": r"autotune-sim (\d+\.\d+[\w.]*)",
            "kv_tokens": r"KV cache size: (\d+) tokens",
        },
    )

    def base_command(self, runtime: Runtime) -> tuple[str, ...]:
        """This Python, unless runtime.executable names another that has autotune; see Engine."""
        return super().base_command(runtime) if runtime.executable else self.serve_command(sys.executable)

    def not_installed_error(self, runtime: Runtime) -> MachineError:
        """Only a Python named in runtime.executable can be missing."""
        return MachineError(
            f"There is no Python '{runtime.executable}'.",
            remedy="Leave runtime.executable out: the simulated engine comes with autotune.",
        )

    def serve_command(self, program: str) -> tuple[str, ...]:
        """The argv that runs the server's module with a Python."""
        return (program, *SERVER_MODULE)

    def flags(self, runtime: Runtime | None = None) -> FlagTable:
        """The bundled flags: the server is part of this package."""
        return replace(bundled_table(self.name), version=__version__)

    def check_model(self, model: Model) -> None:
        """Accept a bundled model's name and a .json file too; the server checks those itself."""
        if not model_files.path_or_name(model).endswith(".json"):
            model_files.check_folder(model)

    def local_gpu_count(self, candidate: Candidate) -> int:
        """0: its GPUs are simulated."""
        return 0

    def fixed_arguments(self, context: LaunchContext) -> tuple[str, ...]:
        """Simulated GPU, seed, and the skew and faults that are enabled."""
        return tuple(word for name, value in context.simulate.by_flag.items() for word in (f"--{name}", str(value)))

    def model_arguments(self, model: Model) -> tuple[str, ...]:
        """Model and served name; without weights there is no revision or tokenizer."""
        served_name = ("--served-model-name", model.served_name) if model.served_name else ()
        return ("--model", model_files.path_or_name(model), *served_name)

    def mounts(self, model: Model) -> tuple[Mount, ...]:
        """A local model's folder; a bundled model needs none."""
        return super().mounts(model) if model_files.is_path(model.id_or_path) else ()

    def image_command(self, executable: str | None = None) -> tuple[str, ...]:
        """The server's module, in an image with autotune."""
        return (executable or "python3", *SERVER_MODULE)
