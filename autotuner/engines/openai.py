"""Whatever serves OpenAI's API at an endpoint that runs already: nothing is known of it, and nothing is launched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotuner.core import Candidate, Failure, FailureKind, ServerSpec, Source, Value
from autotuner.engines.flags import FlagTable
from autotuner.engines.protocol import LaunchContext, Phase
from autotuner.errors import ConfigError, MachineError
from autotuner.experiment import Model, Runtime


class Openai:
    """An engine without flags, command or log."""

    name = "openai"
    source: Source = "measured"
    expected_start_seconds = 1.0
    default_port = 8000

    def base_command(self, runtime: Runtime) -> tuple[str, ...]:
        """None: there is nothing to launch; see Engine."""
        raise MachineError(
            "Runtime openai cannot be launched.",
            why="It stands for an endpoint that runs already.",
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
        """Refuse every parameter: a server that runs already has its own; see Engine."""
        if parameters:
            raise ConfigError(
                f"Runtime openai takes no parameters, and has {', '.join(parameters)}.",
                why="It stands for an endpoint that runs already.",
                remedy="Leave them out, or choose a --runtime that is launched.",
            )

    def check_model(self, model: Model) -> None:
        """Any name may be served; see Engine."""

    def rejection_reason(self, candidate: Candidate, context: LaunchContext) -> str | None:
        """Nothing is known that could speak against it; see Engine."""
        return None

    def server_spec(self, candidate: Candidate, context: LaunchContext) -> ServerSpec:
        """No server; see Engine."""
        self.base_command(context.runtime)
        raise AssertionError("unreachable")

    def local_gpu_count(self, candidate: Candidate) -> int:
        """None here; see Engine."""
        return 0

    def computes_on_gpus(self, context: LaunchContext) -> bool:
        """Not known; see Engine."""
        return False

    def help_spec(self, runtime: Runtime) -> ServerSpec:
        """None; see Engine."""
        self.base_command(runtime)
        raise AssertionError("unreachable")

    def startup_failure(self, log: str) -> Failure | None:
        """Nothing: its log is elsewhere; see Engine."""
        return None

    def diagnose(self, log: str, exit_status: int | None, phase: Phase) -> Failure:
        """Nothing but that it does not answer; see Engine."""
        return Failure(FailureKind.UNHEALTHY, "The endpoint does not answer.", "Look at that server's own log.")

    def parse_server_info(self, log: str) -> dict[str, Any]:
        """Nothing: its log is elsewhere; see Engine."""
        return {}
