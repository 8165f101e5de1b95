"""What all engines share: a command made of flags, checked before anything starts."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from autotuner.core import Candidate, Failure, Mount, ServerSpec, Source, Value
from autotuner.engines import diagnosis, environment, installed
from autotuner.engines import model as models
from autotuner.engines.flags import Flag, FlagTable, bundled_table, spellings_in
from autotuner.engines.parameters import CanonicalParameter, canonical_parameters, to_argument
from autotuner.engines.protocol import LaunchContext, Phase
from autotuner.errors import ConfigError, MachineError, unknown_name_message
from autotuner.experiment import Model, Runtime

LAUNCHER_LOG_PATTERNS = {"image": r"(?m)^autotune: image (\S+)", "image_digest": r"(?m)^autotune: image \S+ is (\S+)"}
"""What a launcher writes into the log before the engine does."""


class CommandLineEngine(ABC):
    """An engine that is one command with flags; a subclass says which and what its log means.

    `reserved` are the flags autotune sets itself, as the bundled table names them; `said` are the
    patterns of what a healthy server says of itself, counts under names that end in `tokens`;
    `program` is the name of its executable.
    """

    name: ClassVar[str]
    source: ClassVar[Source] = "measured"
    expected_start_seconds: ClassVar[float] = 120.0
    default_port: ClassVar[int] = 8000
    program: ClassVar[str]
    failure_rules: ClassVar[tuple[diagnosis.FailureRule, ...]] = diagnosis.COMMON_RULES
    reserved_flags: ClassVar[tuple[str, ...]] = ("--host", "--port", "--served-model-name")
    log_patterns: ClassVar[Mapping[str, str]] = {}
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
        """What to say where the executable is not there."""

    def serve_command(self, program: str) -> tuple[str, ...]:
        """The argv before the flags, for a path or name of the executable."""
        return (program, "serve")

    @abstractmethod
    def image_command(self, executable: str | None = None) -> tuple[str, ...]:
        """The whole command inside an image, without flags; `executable` is another than the image's own."""

    def flags(self, runtime: Runtime | None = None) -> FlagTable:
        """The bundled table; an engine that can be asked for its own overrides this."""
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
        owner: dict[str, str] = {}
        sometimes: dict[str, str] = {}
        for name, values in parameters.items():
            row = canonical_parameters().get(name)
            used = self._check_canonical(row, values, table) if row else self._check_native(name, values, table)
            for flag, always in used:
                if always:
                    self._claim_flag(flag, name, owner)
                else:
                    sometimes[flag.name] = name
        if runtime is not None:
            environment.check_secrets(runtime)
            taken = sometimes | owner
            for spelling in spellings_in(runtime.extra_args):
                self._claim_flag(table.require(spelling), f"runtime.extra_args {spelling}", taken)

    def _check_canonical(
        self, row: CanonicalParameter, values: Sequence[Value], table: FlagTable
    ) -> list[tuple[Flag, bool]]:
        """The flags that the parameter can set, each with whether every value sets it."""
        form = row.for_engine(self.name)
        flags = [table.require(flag) for flag in form.flags]
        for value in values:
            problem = row.problem(value) or form.problem(value)
            if problem is None and form.flag is not None:
                problem = flags[0].problem(form.native_value(value))
            self._raise_on_problem(row.name, problem)
        always = [word == form.flag or all(word in form.arguments(value) for value in values) for word in form.flags]
        return list(zip(flags, always, strict=True))

    def _check_native(self, name: str, values: Sequence[Value], table: FlagTable) -> list[tuple[Flag, bool]]:
        spelling = self.native_flag(name)
        found = table.find(spelling)
        if found is None:
            options = [*canonical_parameters(), *(flag.removeprefix("--") for flag in table.long_names())]
            raise ConfigError(
                unknown_name_message(f"parameter of {self.name}", name, options),
                why=f"It is neither one of autotune's own names nor among {table}.",
                remedy="Correct the name in the parameters.",
            )
        if "." not in spelling:
            for value in values:
                self._raise_on_problem(name, found.problem(value))
        return [(found, True)]

    def _raise_on_problem(self, name: str, problem: str | None) -> None:
        if problem is not None:
            raise ConfigError(
                f"Parameter '{name}' of {self.name}: {problem}", remedy="Correct the value in the parameters."
            )

    def _claim_flag(self, flag: Flag, name: str, owners: dict[str, str]) -> None:
        if flag.name in self.reserved_flags:
            raise ConfigError(f"{flag.name} cannot be set by {name}.", why="autotune chooses it for every launch.")
        before = owners.setdefault(flag.name, name)
        if before != name:
            raise ConfigError(f"{before} and {name} both set {flag.name} of {self.name}.", remedy="Keep one of them.")

    def native_flag(self, name: str) -> str:
        """The flag a native key means: `max_num_seqs` and `max-num-seqs` are one."""
        return "--" + name.replace("_", "-")

    def check_model(self, model: Model) -> None:
        """Refuse a folder that is not there; see Engine."""
        models.check_folder(model)

    def rejection_reason(self, candidate: Candidate, context: LaunchContext) -> str | None:
        """The first reason the candidate cannot run there; see Engine."""
        return next(self.rejection_reasons(candidate, context), None)

    def rejection_reasons(self, candidate: Candidate, context: LaunchContext) -> Iterator[str]:
        """Every reason known beforehand why the candidate cannot run there."""
        sizes = ParallelSizes.from_candidate(candidate)
        total = context.hardware.usable_gpu_count
        needed = self.gpu_count(candidate)
        if total is not None and needed > total:
            yield f"it needs {needed} GPUs and {total} may be used"
        shape = models.model_dimensions(context.model)
        if shape.heads and shape.heads % sizes.tp:
            yield f"{shape.heads} attention heads are not divisible by tp-size {sizes.tp}"
        elif shape.kv_heads and shape.kv_heads % sizes.tp and sizes.tp % shape.kv_heads:
            yield f"{shape.kv_heads} key-value heads and tp-size {sizes.tp} do not divide one another"
        if shape.layers and shape.layers % sizes.pp:
            yield f"{shape.layers} layers are not divisible by pp-size {sizes.pp}"
        if sizes.ep > 1 and shape.experts and shape.experts % sizes.ep:
            yield f"{shape.experts} experts are not divisible by ep-size {sizes.ep}"
        yield from self._duplicate_flags(candidate)

    def _duplicate_flags(self, candidate: Candidate) -> Iterator[str]:
        """The flags that two parameters of the candidate set."""
        owner: dict[str, str] = {}
        for name, value in candidate.parameters.items():
            row = canonical_parameters().get(name)
            form = row.by_engine.get(self.name) if row else None
            words = form.arguments(value)[:1] if form else () if row or value is None else (self.native_flag(name),)
            for word in words:
                if owner.setdefault(word, name) != name:
                    yield f"{owner[word]} and {name} both set {word}"

    def gpu_count(self, candidate: Candidate) -> int:
        """How many GPUs one server of the candidate takes."""
        return candidate.gpus

    def local_gpu_count(self, candidate: Candidate) -> int:
        """How many GPUs of this machine one server takes; see Engine."""
        return self.gpu_count(candidate)

    def computes_on_gpus(self, context: LaunchContext) -> bool:
        """As every engine does unless it says otherwise; see Engine."""
        return True

    # the server

    def server_spec(self, candidate: Candidate, context: LaunchContext) -> ServerSpec:
        """The whole command; see Engine."""
        env, secrets = environment.split_secrets(context.runtime)
        served = context.model.served_name or models.path_or_name(context.model)
        flags = (
            *self.parameter_arguments(candidate, context.runtime),
            *self.fixed_arguments(context),
            *context.runtime.extra_args,
        )
        listen = ("--port", str(context.port))
        inside = context.runtime.executable if context.container else None
        command = self.image_command(inside) if context.container else self._process_command(context)
        opened = "127.0.0.1" if context.runtime.network == "host" else "0.0.0.0"
        host = opened if context.container else context.host
        model = self.model_arguments(context.model)
        gpus = self.local_gpu_count(candidate)
        devices = context.devices[:gpus]
        return ServerSpec(
            image=context.runtime.image,
            argv=(*command, *model, "--host", host, *listen, *flags),
            env=env if context.container else {**environment.visible_devices(devices), **env},
            mounts=(*self.mounts(context.model), *models.configured_mounts(context.runtime)),
            port=context.port,
            ready_path="/health",
            served_model=served,
            container_argv=(*self._container_arguments(inside), *model, "--host", opened, *listen, *flags),
            gpus=gpus,
            secrets=secrets,
            devices=devices,
            entrypoint=inside,
            network=context.runtime.network,
            shm_size=context.runtime.shm_size,
            memory=context.runtime.memory,
        )

    def _process_command(self, context: LaunchContext) -> tuple[str, ...]:
        """The argv before the flags; by its plain name where the engine is not installed and nothing is run."""
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
            mounts=models.configured_mounts(runtime),
            port=0,
            ready_path="",
            served_model="",
            container_argv=command,
            entrypoint=runtime.executable,
        )

    def _container_arguments(self, executable: str | None) -> tuple[str, ...]:
        """What follows the image, or the executable in it that replaces its entry point."""
        return self.image_command(executable)[1:] if executable else self.image_arguments()

    def parameter_arguments(self, candidate: Candidate, runtime: Runtime) -> tuple[str, ...]:
        """The candidate's parameters as arguments, in their order."""
        arguments: list[str] = []
        for name, value in candidate.parameters.items():
            row = canonical_parameters().get(name)
            arguments += (
                row.for_engine(self.name).arguments(value) if row else self._native_arguments(name, value, runtime)
            )
        return tuple(arguments)

    def _native_arguments(self, name: str, value: Value, runtime: Runtime) -> tuple[str, ...]:
        spelling = self.native_flag(name)
        if value is None:
            return ()
        if value is True:
            return (spelling,)
        if value is False:
            known = self._flag_table or self.flags()
            found = known.find(spelling) or self.flags(runtime).find(spelling)
            return (found.negation,) if found and found.negation else ()
        return (spelling, to_argument(value))

    def model_arguments(self, model: Model) -> tuple[str, ...]:
        """The arguments that name the model and what it is served as."""
        named = ("--served-model-name", model.served_name) if model.served_name else ()
        revision = ("--revision", model.revision) if model.revision else ()
        tokenizer = ("--tokenizer", model.tokenizer) if model.tokenizer else ()
        return ("--model", models.path_or_name(model), *named, *revision, *tokenizer)

    def fixed_arguments(self, context: LaunchContext) -> tuple[str, ...]:
        """What the engine always needs beside the parameters."""
        return ()

    def image_arguments(self) -> tuple[str, ...]:
        """What an image with this engine is told before the flags."""
        return self.image_command()

    def mounts(self, model: Model) -> tuple[Mount, ...]:
        """The model's folder at its own path, else the Hugging Face cache."""
        return models.model_mounts(model)

    # what it said

    def startup_failure(self, log: str) -> Failure | None:
        """By the engine's rules for a start; see Engine."""
        return diagnosis.match_rules(self.failure_rules, log, "start")

    def diagnose(self, log: str, exit_status: int | None, phase: Phase) -> Failure:
        """By the engine's rules, in their order; see Engine."""
        return diagnosis.diagnose(self.failure_rules, log, exit_status, phase)

    def parse_server_info(self, log: str) -> dict[str, Any]:
        """Version and KV tokens where the log tells; several engine cores add up; see Engine."""
        found: dict[str, Any] = {}
        for key, pattern in (*self.log_patterns.items(), *LAUNCHER_LOG_PATTERNS.items()):
            matches = re.findall(pattern, log)
            if not matches:
                continue
            is_count = key.endswith("tokens")
            found[key] = sum(int(match.replace(",", "")) for match in matches) if is_count else matches[0]
        return found


@dataclass(frozen=True)
class ParallelSizes:
    """The parallel sizes of a candidate, 1 where unset."""

    tp: int
    pp: int
    dp: int
    ep: int

    @classmethod
    def from_candidate(cls, candidate: Candidate) -> ParallelSizes:
        """Read them from the canonical parameters."""
        given = (candidate.parameters.get(name) for name in ("tp-size", "pp-size", "dp-size", "ep-size"))
        return cls(*(size if isinstance(size, int) and size > 0 else 1 for size in given))
