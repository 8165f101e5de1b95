"""Base class of engines that are started by one command with flags, which are checked before any launch."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from autotuner import model_files
from autotuner.core import PARALLEL_SIZES, Candidate, Mount, ServerSpec, Source, Value
from autotuner.engines import arguments, environment, installed
from autotuner.engines.arguments import Argument, ArgumentSyntax
from autotuner.engines.diagnosis import LogDiagnosis
from autotuner.engines.flags import Flag, FlagTable, bundled_table
from autotuner.engines.parameters import CanonicalParameter, canonical_parameters, to_argument
from autotuner.engines.protocol import LaunchContext
from autotuner.errors import ConfigError, MachineError, unknown_name_message
from autotuner.experiment import Model, Runtime
from autotuner.predict.parallel_rules import ParallelSizes, model_dimensions, refusals


class FlagOwners:
    """What sets each flag, or each key of its value; an empty key sets all of the value."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, str], str] = {}
        self._by_section: dict[tuple[str, str], str] = {}

    def claim(self, flag: str, key: str, name: str) -> str:
        """Record that `name` sets a key of a flag; returns the owner of the same, which is `name` if there was none.

        Keys overlap if one is the other or a section around it.
        """
        parts = key.split(".") if key else []
        sections = ["", *(".".join(parts[:count]) for count in range(1, len(parts) + 1))]
        others = [self._by_key.get((flag, section)) for section in sections]
        others.append(self._by_section.get((flag, key)))
        self._by_key[flag, key] = name
        for section in sections[:-1]:
            self._by_section[flag, section] = name
        return next((other for other in others if other is not None and other != name), name)


_RESERVED_REMEDIES = {
    "--model": "Give --model.",
    "--model-path": "Give --model.",
    "--served-model-name": "Give it as --set model.served_name=NAME.",
    "--served_model_name": "Give it as --set model.served_name=NAME.",
    "--seed": "Give it as --set simulate.seed=N.",
    "--gpu": "Give it as --set simulate.gpu=TYPE.",
}


class CommandLineEngine(ABC):
    """An engine started by one command with flags; a subclass defines the command.

    `reserved_flags` are set by autotune itself, by their names in the bundled table. `program` is the name
    of the executable, `argument_syntax` what its parser accepts.
    """

    name: ClassVar[str]
    source: ClassVar[Source] = "measured"
    expected_start_seconds: ClassVar[float] = 120.0
    default_port: ClassVar[int] = 8000
    program: ClassVar[str]
    diagnosis: ClassVar[LogDiagnosis] = LogDiagnosis()
    reserved_flags: ClassVar[tuple[str, ...]] = ("--host", "--port", "--served-model-name")
    help_flag: ClassVar[str] = "--help"
    argument_syntax: ClassVar[ArgumentSyntax] = ArgumentSyntax()

    def __init__(self) -> None:
        self._flag_table: FlagTable | None = None
        self._parsed_arguments: tuple[tuple[str, ...], Sequence[Argument]] | None = None

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
        if runtime is not None:
            environment.check_secrets(parameters, runtime)
        owners = FlagOwners()
        conditional_claims: list[tuple[Flag, str, str]] = []
        for name, values in parameters.items():
            parameter = canonical_parameters().get(name)
            if parameter:
                settable_flags = self._check_canonical(parameter, values, table)
            else:
                settable_flags = [(self._check_native(name, values, table), True)]
            _, _, key = self.native_flag(name).partition(".")
            for flag, is_always_set in settable_flags:
                if is_always_set:
                    self._claim_flag(flag, key, name, owners)
                else:
                    self._check_reserved(flag, name)
                    conditional_claims.append((flag, key, name))
        if runtime is not None:
            for flag, key, name in conditional_claims:  # two of them may never hold in one candidate
                owners.claim(flag.name, key, name)
            for argument in self.argument_syntax.parse(runtime.extra_args, table):
                owner = f"runtime.extra_args {argument.spelling}" + (f".{argument.key}" if argument.key else "")
                self._claim_flag(argument.flag, argument.key, owner, owners)
                self._check_parallel_size(argument)
                self._check_bounds(argument)

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
        """The engine's own flag that `name` means; ConfigError if it has none or refuses a value."""
        spelling = self.native_flag(name)
        flag = table.find(spelling)
        if flag is None:
            options = [*canonical_parameters(), *(long_name.removeprefix("--") for long_name in table.long_names())]
            raise ConfigError(
                unknown_name_message(f"parameter of {self.name}", name, options),
                why=f"It is neither one of autotune's own names nor among {table}.",
                remedy="Correct the name in the parameters.",
            )
        _, _, key = spelling.partition(".")
        if key and not flag.takes_keys:
            self._raise_on_problem(name, f"{flag.name} takes {flag.type_name}, and has no key '{key}'")
        for value in () if key else values:
            problem = flag.problem(value) or (flag.json_problem(value) if isinstance(value, str) else None)
            self._raise_on_problem(name, problem)
        return flag

    def _raise_on_problem(self, name: str, problem: str | None) -> None:
        if problem is not None:
            raise ConfigError(
                f"Parameter '{name}' of {self.name}: {problem}", remedy="Correct the value in the parameters."
            )

    def _claim_flag(self, flag: Flag, key: str, name: str, owners: FlagOwners) -> None:
        """Record that `name` sets the flag, or a key of its value; ConfigError if autotune or another sets it."""
        self._check_reserved(flag, name)
        owner = owners.claim(flag.name, key, name)
        if owner != name:
            raise ConfigError(f"{owner} and {name} both set {flag.name} of {self.name}.", remedy="Keep one of them.")

    def _check_reserved(self, flag: Flag, name: str) -> None:
        """ConfigError for a flag that autotune itself sets."""
        reserved = self.reserved_flags
        if flag.name in reserved or any(alias in reserved for alias in flag.aliases):
            raise ConfigError(
                f"{flag.name} cannot be set by {name}.",
                why="autotune chooses it for every launch.",
                remedy=_RESERVED_REMEDIES.get(flag.name, "Leave it out."),
            )

    def _check_bounds(self, argument: Argument) -> None:
        """ConfigError for a number outside the bounds of the parameter that sets the same flag."""
        value = argument.value
        if argument.key or not isinstance(value, int | float) or value == -1:  # -1 often means the engine's own choice
            return
        for parameter in canonical_parameters().values():
            option = parameter.by_engine.get(self.name)
            if option is not None and option.flag == argument.flag.name and (problem := parameter.problem(value)):
                raise ConfigError(f"{argument.spelling} in runtime.extra_args: {problem}", remedy=arguments.REMEDY)

    def _check_parallel_size(self, argument: Argument) -> None:
        """ConfigError for an argument that sets the number of GPUs, which only parameters can."""
        for name in PARALLEL_SIZES:
            flags = canonical_parameters()[name].by_engine[self.name].flags
            if argument.flag.name in flags and argument.flag.type != "bool" and argument.value not in (1, None):
                raise ConfigError(
                    f"{argument.spelling} cannot be set by runtime.extra_args.",
                    why=f"It is {name}, by which autotune counts the GPUs of a launch.",
                    remedy=f"Give it as a parameter: --set parameters.{name}=[{' '.join(argument.values) or 1}].",
                )

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

    def setting(self, name: str, candidate: Candidate, context: LaunchContext) -> Value:
        """The value of a canonical parameter, by whichever name the candidate or runtime.extra_args sets it.

        None where neither does, and the engine's default applies.
        """
        flags = canonical_parameters()[name].by_engine[self.name].flags
        value = candidate.parameters.get(name)
        if value is not None:
            return value
        for other, other_value in candidate.parameters.items():
            if other_value is not None and other not in canonical_parameters() and self.native_flag(other) in flags:
                return other_value
        arguments = (argument for argument in self._extra_arguments(context.runtime) if not argument.key)
        return next((argument.value for argument in arguments if argument.flag.name in flags), None)

    def sets_flag(self, flag: str, candidate: Candidate, context: LaunchContext) -> bool:
        """Whether the candidate or runtime.extra_args sets one of the engine's own flags, or a key of its value."""
        names = (self.native_flag(name).partition(".")[0] for name in candidate.parameters)
        return flag in names or any(argument.flag.name == flag for argument in self._extra_arguments(context.runtime))

    def flag_value(self, flag: str, candidate: Candidate, context: LaunchContext) -> Value:
        """The value that the candidate or runtime.extra_args gives one of the engine's own flags; None without one."""
        for name, value in candidate.parameters.items():
            if name not in canonical_parameters() and self.native_flag(name) == flag:
                return value
        arguments = (argument for argument in self._extra_arguments(context.runtime) if not argument.key)
        return next((argument.value for argument in arguments if argument.flag.name == flag), None)

    def _extra_arguments(self, runtime: Runtime) -> Sequence[Argument]:
        """runtime.extra_args as the engine reads them; empty where it would refuse them, as `check_parameters` says."""
        if self._parsed_arguments is None or self._parsed_arguments[0] != runtime.extra_args:
            arguments: Sequence[Argument] = ()
            with contextlib.suppress(ConfigError):
                arguments = self.argument_syntax.parse(runtime.extra_args, self._flag_table or self.flags())
            self._parsed_arguments = runtime.extra_args, arguments
        return self._parsed_arguments[1]

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

    def whole_image_command(self, spec: ServerSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Program and arguments that a container runs, also where the image's entry point begins the command."""
        if spec.entrypoint is not None:
            return (spec.entrypoint,), spec.container_argv
        if not self.image_arguments():
            return self.image_command(), spec.container_argv
        program = self.image_command()
        length = len(program) if spec.container_argv[: len(program)] == program else 1
        return spec.container_argv[:length], spec.container_argv[length:]

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
