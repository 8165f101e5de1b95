"""The settings of the simulated engine: one table of them, read from a candidate or from a command line."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NoReturn

from autotuner.errors import ConfigError
from autotuner.predict.hardware import GpuSpec, find_gpu
from autotuner.predict.shape import DEFAULT_MODEL
from autotuner.simulate.faults import Faults
from autotuner.simulate.scheduler import POLICIES
from autotuner.simulate.skew import Skew

if TYPE_CHECKING:  # the server itself needs neither, and would start half as fast with them
    from autotuner.core import Candidate
    from autotuner.experiment import SimulationOptions

PROGRAM = "python -m autotuner.simulate.server"
KV_DTYPES = {
    "auto": "bf16",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "float16": "bf16",
    "fp8": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
}
DISAGGREGATION_MODES = ("prefill", "decode")
QUANTIZATIONS = ("fp8", "int8", "int4", "fp4")
BAD_FLAG_STATUS = 2
"""Exit status of the server for a SettingsError."""


class SettingsError(Exception):
    """A value or a flag that the simulated engine does not take, in argparse's words."""


@dataclass(frozen=True)
class Option:
    """How a setting is given: `read` turns text into its value, and raises ValueError or ConfigError.

    A setting that is true or false by default is a switch, one with `many` takes several words.
    """

    group: str
    help: str
    default: Any = None
    read: Callable[[str], Any] = str
    choices: Collection[str] = ()
    metavar: str | None = None
    many: bool = False

    @property
    def default_value(self) -> Any:
        return self.parse(self.default) if isinstance(self.default, str) else self.default

    def parse(self, text: str) -> Any:
        """The value of an argument; ArgumentTypeError if it is not valid."""
        if self.choices and text not in self.choices:
            raise argparse.ArgumentTypeError(f"invalid choice: {text!r} (choose from {', '.join(self.choices)})")
        try:
            return self.read(text)
        except (ValueError, ConfigError) as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    def argparse_options(self) -> dict[str, Any]:
        """The keyword arguments of add_argument; not its choices, which it compares with what `read` returns."""
        shared = {"default": self.default, "help": self.help}
        if isinstance(self.default, bool):
            return {"action": argparse.BooleanOptionalAction, **shared}
        metavar = self.metavar or (f"{{{','.join(self.choices)}}}" if self.choices else None)
        return {"type": self.parse, "metavar": metavar, "nargs": "+" if self.many else None, **shared}


def _setting(group: str, help: str, default: Any = None, read: Callable[[str], Any] = str, **more: Any) -> Any:
    return field(metadata={"option": Option(group, help, default, read, **more)})


def _number(kind: Callable[[str], float], is_valid: Callable[[float], bool], words: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = kind(text)
        if not is_valid(value):
            raise ValueError(f"{text} is not {words}")
        return value

    return read


_positive_int = _number(int, lambda value: value >= 1, "at least 1")
_count = _number(int, lambda value: value >= 0, "at least 0")
_duration = _number(float, lambda value: 0 <= value < math.inf, "a number of at least 0")
_positive = _number(float, lambda value: 0 < value < math.inf, "a number above 0")
_probability = _number(float, lambda value: 0 <= value <= 1, "between 0 and 1")
_fraction = _number(float, lambda value: 0 < value <= 1, "above 0 and at most 1")
_port = _number(int, lambda value: 0 <= value <= 65535, "a port")
_server, _engine, _simulation = (partial(_setting, group) for group in ("server", "engine", "simulation"))
_request_number = partial(_simulation, read=_count, metavar="N")
_share = partial(_simulation, default=0.0, read=_probability, metavar="P")


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """What the simulated engine runs with, by the names of its parameters and flags; None where the engine chooses.

    `calibration_engine` is the engine whose calibrated efficiencies determine the step times.
    """

    model: str = _server("bundled model name, or a folder or file with a config.json", DEFAULT_MODEL)
    served_model_name: Sequence[str] | None = _server(
        "model names that clients may use; default: --model", metavar="NAME", many=True
    )
    host: str = _server("address to listen on", "127.0.0.1")
    port: int = _server("port to listen on; 0 for any free port", 8000, _port)

    tp_size: int = _engine("tensor-parallel size", 1, _positive_int)
    pp_size: int = _engine("pipeline-parallel size", 1, _positive_int)
    mem_fraction_static: float = _engine("fraction of GPU memory for weights and KV cache", 0.9, _fraction)
    max_running_requests: int = _engine("maximum number of sequences in a batch", 256, _positive_int)
    max_batched_tokens: int | None = _engine(
        "maximum tokens per iteration; default: 8192, or the model length without chunked prefill", None, _positive_int
    )
    max_model_len: int | None = _engine(
        "maximum tokens of a request; default: the model's, or what fits", None, _positive_int
    )
    kv_block_size: int = _engine("tokens per KV cache block", 16, _positive_int)
    kv_cache_dtype: str = _engine("data type of the KV cache", "auto", KV_DTYPES.__getitem__, choices=KV_DTYPES)
    quantization: str | None = _engine("data type of the weights; default: the checkpoint's", choices=QUANTIZATIONS)
    prefix_caching: bool = _engine("reuse the KV cache of shared prefixes", True)
    enable_chunked_prefill: bool = _engine("mix prompt chunks and decodes in one batch", True)
    cuda_graph: bool = _engine("decode with CUDA graphs", True)
    schedule_policy: str = _engine("order in which waiting requests are scheduled", "fcfs", choices=POLICIES)

    disaggregation_mode: str | None = _engine(
        "compute prompts and hand over their KV cache, or decode what was handed over; default: both here",
        choices=DISAGGREGATION_MODES,
    )
    kv_transfer_gbps: float | None = _engine(
        "GB/s at which a KV cache is received; default: the links between GPUs of one node", None, _positive
    )

    gpu: GpuSpec = _simulation("GPU type to simulate", "h100_sxm", find_gpu)  # noqa: RUF009 it is a field
    seed: int = _simulation("random seed of the faults", 0, int)
    skew_seed: int = _simulation("random seed of the --skew-sd factors", 0, int)
    skew_sd: float = _simulation(
        "multiply each cost by a log-normal factor with this standard deviation", 0.0, _duration
    )
    load_seconds: float = _simulation("seconds to load the weights", 1.0, _duration)
    fixed_step_ms: float | None = _simulation("fixed milliseconds per iteration, whatever the batch", None, _duration)
    fault_start_delay: float = _simulation("additional seconds until ready", 0.0, _duration)
    fault_crash_after: int | None = _request_number("crash on the request after N")
    fault_hang_after: int | None = _request_number("stop emitting tokens on the request after N")
    fault_rate_limited: float = _share("fraction of requests to answer with 429")
    fault_server_error: float = _share("fraction of requests to answer with 500")
    fault_malformed: float = _share("fraction of requests to answer with malformed JSON")
    fault_early_stop: float = _share("fraction of requests to stop before the requested length")

    calibration_engine: str = "vllm"

    @classmethod
    def of(
        cls, candidate: Candidate, model: str, simulation: SimulationOptions, extra_args: Sequence[str] = ()
    ) -> SimulationSettings:
        """The settings of a candidate of this engine; SettingsError for what it does not take.

        `extra_args` are a part of a command line, which overrides the rest.
        """
        values = {name: option.default_value for name, option in OPTIONS.items()}
        for parameter, value in {**candidate.parameters, **simulation.by_flag, "model": model}.items():
            option = OPTIONS.get(name := parameter.replace("-", "_"))
            if option is None:
                raise SettingsError(f"{PROGRAM}: error: unrecognized arguments: --{parameter}")
            try:
                if value is not None:
                    values[name] = bool(value) if isinstance(option.default, bool) else option.parse(str(value))
            except argparse.ArgumentTypeError as error:
                raise SettingsError(f"{PROGRAM}: error: argument --{parameter}: {error}") from error
        if extra_args:
            values = vars(build_parser().parse_args(extra_args, argparse.Namespace(**values)))
        return cls(**values)

    @property
    def served_names(self) -> tuple[str, ...]:
        return tuple(self.served_model_name or (self.model,))

    @property
    def skew(self) -> Skew:
        return Skew(self.skew_seed, self.skew_sd)

    @cached_property
    def faults(self) -> Faults:
        return Faults(**{key.removeprefix("fault_"): getattr(self, key) for key in OPTIONS if key.startswith("fault_")})


OPTIONS: dict[str, Option] = {
    setting.name: setting.metadata["option"] for setting in fields(SimulationSettings) if setting.metadata
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{self.format_usage()}{self.prog}: error: {message}\n")


class _DefaultsHelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Prints a default only for options that have one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the server's command line."""
    parser = _Parser(
        prog=PROGRAM,
        description="A simulated inference engine: an OpenAI-compatible server in real time, with step times from a "
        "roofline model of the given GPU and model. It computes no tokens and needs no GPU.",
        allow_abbrev=False,
        formatter_class=_DefaultsHelpFormatter,
    )
    groups = {title: parser.add_argument_group(title) for title in ("server", "engine", "simulation")}
    for name, option in OPTIONS.items():
        groups[option.group].add_argument(f"--{name.replace('_', '-')}", **option.argparse_options())
    return parser


def parse_settings(argv: Sequence[str] | None = None) -> SimulationSettings:
    """Parse the command line; SettingsError, with the usage, for one that is not valid."""
    return SimulationSettings(**vars(build_parser().parse_args(argv)))
