"""What every engine answers, and the circumstances it is asked about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from autotuner.core import Candidate, Failure, ServerSpec, Source, Value
from autotuner.engines.flags import FlagTable
from autotuner.experiment import Experiment, Hardware, Model, Runtime, SimulationOptions

Phase = Literal["start", "load"]
"""Whether a server had not yet answered, or was under load."""


@dataclass(frozen=True)
class LaunchContext:
    """What is to be served, with what, and where it listens; `container` tells a container from a process.

    `devices` are the indexes of the GPUs that may be used, best connected first; empty for any.
    `only_printed` is for a command that is shown and not run here: the engine need not be installed.
    """

    model: Model
    runtime: Runtime = field(default_factory=Runtime)
    hardware: Hardware = field(default_factory=Hardware)
    simulate: SimulationOptions = field(default_factory=SimulationOptions)
    host: str = "127.0.0.1"
    port: int = 8000
    container: bool = False
    devices: tuple[int, ...] = ()
    print_only: bool = False

    @classmethod
    def from_experiment(
        cls,
        experiment: Experiment,
        port: int = 8000,
        devices: tuple[int, ...] = (),
        *,
        print_only: bool = False,
    ) -> LaunchContext:
        """The context an experiment describes, at a port."""
        return cls(
            model=experiment.model,
            runtime=experiment.runtime,
            hardware=experiment.hardware,
            simulate=experiment.simulate,
            port=port,
            container=experiment.deployment.mode == "docker",
            devices=devices,
            print_only=print_only,
        )


class Engine(Protocol):
    """One inference engine: its flags, its command, and what its log means.

    `start_seconds` is what a start is taken to last before one was seen, `default_port` where it
    listens when nobody says.
    """

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def source(self) -> Source:
        """What its numbers are: measured, or simulated."""

    @property
    def expected_start_seconds(self) -> float:
        """Seconds a start is taken to last before one was seen."""

    @property
    def default_port(self) -> int:
        """The port of a command that is printed."""

    def base_command(self, runtime: Runtime) -> tuple[str, ...]:
        """The argv that comes before the flags; MachineError when the engine is not installed."""

    def flags(self, runtime: Runtime | None = None) -> FlagTable:
        """The flags of the engine that `runtime` runs, or of the bundled version."""

    def check_parameters(
        self,
        parameters: Mapping[str, Sequence[Value]],
        runtime: Runtime | None = None,
        table: FlagTable | None = None,
    ) -> None:
        """ConfigError, with the nearest name, for a parameter or value the engine does not take.

        With `runtime` the installed engine is asked for its flags, unless `table` has them, and the
        runtime's own arguments and environment are checked too.
        """

    def local_gpu_count(self, candidate: Candidate) -> int:
        """How many GPUs of this machine one server of the candidate takes."""

    def computes_on_gpus(self, context: LaunchContext) -> bool:
        """False where it is known that no GPU computes, as with a build for CPU."""

    def help_spec(self, runtime: Runtime) -> ServerSpec:
        """The container that prints the flags of the engine in an image and ends."""

    def check_model(self, model: Model) -> None:
        """ConfigError when the model is a path and nothing that can be served is there."""

    def rejection_reason(self, candidate: Candidate, context: LaunchContext) -> str | None:
        """Why the candidate cannot run there, or None."""

    def server_spec(self, candidate: Candidate, context: LaunchContext) -> ServerSpec:
        """The server of one candidate, complete: what runs, and what is printed."""

    def startup_failure(self, log: str) -> Failure | None:
        """The failure a line in the log of a server that starts already means, whether it ended or not."""

    def diagnose(self, log: str, exit_status: int | None, phase: Phase) -> Failure:
        """What went wrong, in the log's own words; `exit_status` is None while the server is alive."""

    def parse_server_info(self, log: str) -> dict[str, Any]:
        """What a healthy server said of itself: version, kv_tokens."""
