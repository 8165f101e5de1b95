"""An unknown engine behind a running endpoint with OpenAI's API; it is never launched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotuner.core import Candidate, Failure, FailureKind, ServerSpec, Source, Value
from autotuner.engines.flags import FlagTable
from autotuner.engines.protocol import LaunchContext, Phase
from autotuner.errors import ConfigError, MachineError
from autotuner.experiment import Model, Runtime


class UnreadableLog:
    """The Diagnosis of a server whose log cannot be read."""

    def startup_failure(self, log: str) -> Failure | None:
        return None

    def failure(self, log: str, exit_status: int | None, phase: Phase) -> Failure:
        return Failure(FailureKind.UNHEALTHY, "The endpoint does not answer.", "Look at that server's own log.")

    def server_info(self, log: str) -> dict[str, Any]:
        return {}


class Openai:
    """An engine without flags, command or log."""

    name = "openai"
    source: Source = "measured"
    expected_start_seconds = 1.0
    default_port = 8000
    diagnosis = UnreadableLog()

    def base_command(self, runtime: Runtime) -> tuple[str, ...]:
        """Raises MachineError: the endpoint is already running; see Engine."""
        raise MachineError(
            "Runtime openai cannot be launched.",
            why="It stands for an endpoint that is already running.",
            remedy="Give its --url, or choose a --runtime.",
        )

    def flags(self, runtime: Runtime | None = None) -> FlagTable:
        """No flags; see Engine."""
        return FlagTable("openai", "", {})

    def check_parameters(
        self,
        parameters: Mapping[str, Sequence[Value]],
        runtime: Runtime | None = None,
        table: FlagTable | None = None,
    ) -> None:
        """Refuse every parameter: those of a running server cannot be changed; see Engine."""
        if parameters:
            raise ConfigError(
                f"Runtime openai takes no parameters, and has {', '.join(parameters)}.",
                why="It stands for an endpoint that is already running.",
                remedy="Leave them out, or choose a --runtime that is launched.",
            )

    def check_model(self, model: Model) -> None:
        """Accept any name; see Engine."""

    def rejection_reason(self, candidate: Candidate, context: LaunchContext) -> str | None:
        """None: nothing is known of the endpoint; see Engine."""
        return None

    def server_spec(self, candidate: Candidate, context: LaunchContext) -> ServerSpec:
        """Raises MachineError; see Engine."""
        self.base_command(context.runtime)
        raise AssertionError("unreachable")

    def local_gpu_count(self, candidate: Candidate) -> int:
        """0: the endpoint's GPUs are not this run's; see Engine."""
        return 0

    def computes_on_gpus(self, context: LaunchContext) -> bool:
        """False: its GPUs cannot be seen from here; see Engine."""
        return False

    def help_spec(self, runtime: Runtime) -> ServerSpec:
        """Raises MachineError; see Engine."""
        self.base_command(runtime)
        raise AssertionError("unreachable")
