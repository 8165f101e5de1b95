"""The protocols of inference engines: how one is started, what its log means; and the context of a launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from autotuner.core import Candidate, Failure, ServerSpec, Source, Value
from autotuner.engines.flags import FlagTable
from autotuner.experiment import Experiment, Hardware, Model, Runtime, SimulationOptions

Phase = Literal["start", "load"]
"""Phase of a failure: before the server was ready, or under load."""


@dataclass(frozen=True)
class LaunchContext:
    """Everything but the candidate that decides a server's command: model, hardware, address, process or container.

    `devices` are the indexes of the GPUs that may be used, best connected first; empty for any.
    With `print_only` the command is shown and not run: the engine need not be installed.
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
        """The launch context of an experiment, for a port and GPUs."""
        return cls(
            model=experiment.model,
            runtime=experiment.runtime,
            hardware=experiment.hardware,
            simulate=experiment.simulate,
            port=port,
            container=experiment.deployment.uses_image,
            devices=devices,
            print_only=print_only,
        )


class Diagnosis(Protocol):
    """What the log of one engine's server means."""

    def startup_failure(self, log: str) -> Failure | None:
        """The failure that the log of a starting server shows, even while its process is alive; None if none."""

    def failure(self, log: str, exit_status: int | None, phase: Phase) -> Failure:
        """The failure, with the engine's own message; `exit_status` is None while the server is alive."""

    def server_info(self, log: str) -> dict[str, Any]:
        """What the log says of a healthy server: version, kv_tokens, image, image_digest."""


class Engine(Protocol):
    """How one inference engine is started: its flags, its command, and what it cannot run."""

    @property
    def name(self) -> str:
        """Name in configurations and on the command line."""

    @property
    def source(self) -> Source:
        """Whether its figures are measured or simulated."""

    @property
    def expected_start_seconds(self) -> float:
        """Start-up time that plans assume until one was measured."""

    @property
    def diagnosis(self) -> Diagnosis:
        """How the log of a server that was started is read."""

    @property
    def default_port(self) -> int:
        """Port of printed commands; the engine's own default."""

    def base_command(self, runtime: Runtime) -> tuple[str, ...]:
        """The argv before the flags, such as (/bin/vllm, serve); MachineError if the engine is not installed."""

    def flags(self, runtime: Runtime | None = None) -> FlagTable:
        """Flags of the engine that `runtime` names if it is installed, else of the bundled version."""

    def check_parameters(
        self,
        parameters: Mapping[str, Sequence[Value]],
        runtime: Runtime | None = None,
        table: FlagTable | None = None,
    ) -> None:
        """Raise ConfigError, with the nearest name, for a parameter or value that the engine does not accept.

        `parameters` maps names to all values of the search space. With `runtime` the installed engine's
        flags are read, unless given as `table`, and the runtime's arguments and environment are checked too.
        """

    def local_gpu_count(self, candidate: Candidate) -> int:
        """Number of this machine's GPUs that one server of the candidate occupies; 0 if it runs elsewhere."""

    def computes_on_gpus(self, context: LaunchContext) -> bool:
        """False when the engine is known not to compute on GPUs, as with a CPU build."""

    def help_spec(self, runtime: Runtime) -> ServerSpec:
        """A container that prints the --help of the engine in an image."""

    def check_model(self, model: Model) -> None:
        """Raise ConfigError if the model is a path without a model in it."""

    def rejection_reason(self, candidate: Candidate, context: LaunchContext) -> str | None:
        """Why the candidate cannot run in this context, as far as known before a launch; None if it may."""

    def server_spec(self, candidate: Candidate, context: LaunchContext) -> ServerSpec:
        """The complete server of one candidate, which is launched and printed."""
