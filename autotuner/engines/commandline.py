"""Base class of engines that are started by one command with flags, which are checked before any launch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from autotuner import model_files
from autotuner.core import Candidate, Mount, ServerSpec, Source, Value
from autotuner.engines import environment, installed
from autotuner.engines.diagnosis import LogDiagnosis
from autotuner.engines.flags import Flag, FlagTable, bundled_table, spellings_in
from autotuner.engines.parameters import CanonicalParameter, canonical_parameters, to_argument
from autotuner.engines.protocol import LaunchContext
from autotuner.errors import ConfigError, MachineError, unknown_name_message
from autotuner.experiment import Model, Runtime
from autotuner.predict.parallel_rules import ParallelSizes, model_dimensions, refusals


class CommandLineEngine(ABC):
    """An engine started by one command with flags; a subclass defines the command.

    `reserved_flags` are set by autotune itself, by their names in the bundled table. `program` is the name
    of the executable.
    """

    name: ClassVar[str]
    source: ClassVar[Source] = "measured"
    expected_start_seconds: ClassVar[float] = 120.0
    default_port: ClassVar[int] = 8000
    program: ClassVar[str]
    diagnosis: ClassVar[LogDiagnosis] = LogDiagnosis()
    reserved_flags: ClassVar[tuple[str, ...]] = ("--host", "--port", "--served-model-name")
    help_flag: ClassVar[str] = "--help"

    def __init__(self) -> None:
        self._flag_table: FlagTable | None = None

    def base_command(self, runtime: Runtime) -> tuple[str, ...]:
        """The argv before the flags, of runtime.executable or the program on PATH; see Engine."""
        path = installed.find_executable(runtime.executable, self.program)
        if path is None:
            raise self.not_installed_error(runtime)
        return self.serve_command(path)

    @abstractmethod
    def not_installed_error(self, runtime: Runtime) -> MachineError:
        """The error for a missing executable."""

    def serve_command(self, program: str) -> tuple[str, ...]:
        """The argv before the flags, for a path or name of the executable."""
        return (program, "serve")

    @abstractmethod
    def image_command(self, executable: str | None = None) -> tuple[str, ...]:
        """The command inside an image, without flags; `executable` replaces the image's own."""

    def flags(self, runtime: Runtime | None = None) -> FlagTable:
        """The bundled table; engines that read their own --help override this."""
        return bundled_table(self.name)

    # checks before anything starts

    def check_parameters(
        self,
        parameters: Mapping[str, Sequence[Value]],
        runtime: Runtime | None = None,
        table: FlagTable | None = None,
    ) -> None:
        """Refuse unknown parameters, wrong types and values outside their choices; see Engine."""
        self._flag_table = table or self._flag_table
        table = self._flag_table or self.flags(runtime)
        owners: dict[str, str] = {}
        conditional_owners: dict[str, str] = {}
        for name, values in parameters.items():
            parameter = canonical_parameters().get(name)
            if parameter:
                settable_flags = self._check_canonical(parameter, values, table)
            else:
                settable_flags = [(self._check_native(name, values, table), True)]
            for flag, is_always_set in settable_flags:
                if is_always_set:
                    self._claim_flag(flag, name, owners)
                else:
                    conditional_owners[flag.name] = name
        if runtime is not None:
            environment.check_secrets(runtime)
            all_owners = conditional_owners | owners
            for spelling in spellings_in(runtime.extra_args):
                self._claim_flag(table.require(spelling), f"runtime.extra_args {spelling}", all_owners)

    def _check_canonical(
        self, parameter: CanonicalParameter, values: Sequence[Value], table: FlagTable
    ) -> list[tuple[Flag, bool]]:
        """The flags that the parameter can set, each with whether every one of `values` sets it."""
        option = parameter.for_engine(self.name)
        flags = [table.require(flag) for flag in option.flags]
        for value in values:
            problem = parameter.problem(value) or option.problem(value)
            if problem is None and option.flag is not None:
                problem = flags[0].problem(option.native_value(value))
            self._raise_on_problem(parameter.name, problem)
        always_set = [
            flag == option.flag or all(flag in option.arguments(value) for value in values) for flag in option.flags
        ]
        return list(zip(flags, always_set, strict=True))

    def _check_native(self, name: str, values: Sequence[Value], table: FlagTable) -> Flag:
        """The engine's own flag that `name` means; ConfigError when it has none or refuses a value."""
        spelling = self.native_flag(name)
        flag = table.find(spelling)
        if flag is None:
            options = [*canonical_parameters(), *(long_name.removeprefix("--") for long_name in table.long_names())]
            raise ConfigError(
                unknown_name_message(f"parameter of {self.name}", name, options),
                why=f"It is neither one of autotune's own names nor among {table}.",
                remedy="Correct the name in the parameters.",
            )
        if "." not in spelling:
            for value in values:
                self._raise_on_problem(name, flag.problem(value))
        return flag

    def _raise_on_problem(self, name: str, problem: str | None) -> None:
        if problem is not None:
            raise ConfigError(
                f"Parameter '{name}' of {self.name}: {problem}", remedy="Correct the value in the parameters."
            )

    def _claim_flag(self, flag: Flag, name: str, owners: dict[str, str]) -> None:
        """Record that parameter `name` sets the flag; ConfigError when autotune or another parameter sets it."""
        if flag.name in self.reserved_flags:
            raise ConfigError(f"{flag.name} cannot be set by {name}.", why="autotune chooses it for every launch.")
        owner = owners.setdefault(flag.name, name)
        if owner != name:
            raise ConfigError(f"{owner} and {name} both set {flag.name} of {self.name}.", remedy="Keep one of them.")

    def native_flag(self, name: str) -> str:
        """The flag of a key in the engine's own words: `max_num_seqs` and `max-num-seqs` are the same."""
        return "--" + name.replace("_", "-")

    def check_model(self, model: Model) -> None:
        """Refuse a folder that is not there; see Engine."""
        model_files.check_folder(model)

    def rejection_reason(self, candidate: Candidate, context: LaunchContext) -> str | None:
        """The first known reason why the candidate cannot run; see Engine."""
        return next(self.rejection_reasons(candidate, context), None)

    def rejection_reasons(self, candidate: Candidate, context: LaunchContext) -> Iterator[str]:
        """Every reason known before a launch: too few GPUs, sizes that the engine refuses, flags set twice."""
        sizes = candidate.parallelism
        available = context.hardware.usable_gpu_count
        if available is not None and sizes.gpus > available:
            yield f"it needs {sizes.gpus} GPUs and {available} may be used"
        given = ParallelSizes(sizes.tp, sizes.pp, sizes.ep, attention_dp=sizes.dp if sizes.dp_attention else 1)
        yield from refusals(model_dimensions(context.model), self.name, given)
        yield from self._duplicate_flags(candidate)

    def _duplicate_flags(self, candidate: Candidate) -> Iterator[str]:
        """A reason for each flag that two parameters of the candidate set."""
        owners: dict[str, str] = {}
        for name, value in candidate.parameters.items():
            parameter = canonical_parameters().get(name)
            flags: tuple[str, ...] = ()
            if parameter is None:
                flags = () if value is None else (self.native_flag(name),)
            elif self.name in parameter.by_engine:
                flags = parameter.by_engine[self.name].arguments(value)[:1]
            for flag in flags:
                if owners.setdefault(flag, name) != name:
                    yield f"{owners[flag]} and {name} both set {flag}"

    def local_gpu_count(self, candidate: Candidate) -> int:
        """Number of this machine's GPUs that one server occupies; see Engine."""
        return candidate.gpus

    def computes_on_gpus(self, context: LaunchContext) -> bool:
        """True; engines with other builds override this; see Engine."""
        return True

    # the server

    def server_spec(self, candidate: Candidate, context: LaunchContext) -> ServerSpec:
        """The complete command, for a process or a container; see Engine."""
        env, secrets = environment.split_secrets(context.runtime)
        served_model = context.model.served_name or model_files.path_or_name(context.model)
        flags = (
            *self.parameter_arguments(candidate, context.runtime),
            *self.fixed_arguments(context),
            *context.runtime.extra_args,
        )
        port = ("--port", str(context.port))
        image_executable = context.runtime.executable if context.container else None
        command = self.image_command(image_executable) if context.container else self._process_command(context)
        container_host = "127.0.0.1" if context.runtime.network == "host" else "0.0.0.0"
        host = container_host if context.container else context.host
        model = self.model_arguments(context.model)
        container_arguments = self._container_arguments(image_executable)
        gpus = self.local_gpu_count(candidate)
        devices = context.devices[:gpus]
        return ServerSpec(
            image=context.runtime.image,
            argv=(*command, *model, "--host", host, *port, *flags),
            env=env if context.container else {**environment.visible_devices(devices), **env},
            mounts=(*self.mounts(context.model), *model_files.configured_mounts(context.runtime)),
            port=context.port,
            ready_path="/health",
            served_model=served_model,
            container_argv=(*container_arguments, *model, "--host", container_host, *port, *flags),
            gpus=gpus,
            secrets=secrets,
            devices=devices,
            entrypoint=image_executable,
            network=context.runtime.network,
            shm_size=context.runtime.shm_size,
            memory=context.runtime.memory,
        )

    def _process_command(self, context: LaunchContext) -> tuple[str, ...]:
        """The argv before the flags; for a missing engine the bare program name, if the command is only printed."""
        try:
            return self.base_command(context.runtime)
        except MachineError:
            if not context.print_only:
                raise
            return self.serve_command(context.runtime.executable or self.program)

    def help_spec(self, runtime: Runtime) -> ServerSpec:
        """The engine's --help in its image; see Engine."""
        command = (*self._container_arguments(runtime.executable), self.help_flag)
        return ServerSpec(
            image=runtime.image,
            argv=command,
            env={**environment.split_secrets(runtime)[0], **environment.WIDE_TERMINAL},
            mounts=model_files.configured_mounts(runtime),
            port=0,
            ready_path="",
            served_model="",
            container_argv=command,
            entrypoint=runtime.executable,
        )

    def _container_arguments(self, executable: str | None) -> tuple[str, ...]:
        """The arguments after the image name, or after `executable` when that replaces the image's entry point."""
        return self.image_command(executable)[1:] if executable else self.image_arguments()

    def parameter_arguments(self, candidate: Candidate, runtime: Runtime) -> tuple[str, ...]:
        """The candidate's parameters as command-line arguments, in their order."""
        arguments: list[str] = []
        for name, value in candidate.parameters.items():
            parameter = canonical_parameters().get(name)
            if parameter:
                arguments += parameter.for_engine(self.name).arguments(value)
            else:
                arguments += self._native_arguments(name, value, runtime)
        return tuple(arguments)

    def _native_arguments(self, name: str, value: Value, runtime: Runtime) -> tuple[str, ...]:
        """A parameter in the engine's own words as arguments; none for None, the engine's default."""
        spelling = self.native_flag(name)
        if value is None:
            return ()
        if value is True:
            return (spelling,)
        if value is False:
            table = self._flag_table or self.flags()
            flag = table.find(spelling) or self.flags(runtime).find(spelling)
            return (flag.negation,) if flag and flag.negation else ()
        return (spelling, to_argument(value))

    def model_arguments(self, model: Model) -> tuple[str, ...]:
        """The arguments for model, served name, revision and tokenizer."""
        served_name = ("--served-model-name", model.served_name) if model.served_name else ()
        revision = ("--revision", model.revision) if model.revision else ()
        tokenizer = ("--tokenizer", model.tokenizer) if model.tokenizer else ()
        return ("--model", model_files.path_or_name(model), *served_name, *revision, *tokenizer)

    def fixed_arguments(self, context: LaunchContext) -> tuple[str, ...]:
        """Arguments that every launch of this engine has, whatever the parameters."""
        return ()

    def image_arguments(self) -> tuple[str, ...]:
        """The arguments of an image of this engine before the flags; the whole command where it has no entry point."""
        return self.image_command()

    def mounts(self, model: Model) -> tuple[Mount, ...]:
        """Mounts for a local model folder, at its own path, or for the Hugging Face cache."""
        return model_files.model_mounts(model)
