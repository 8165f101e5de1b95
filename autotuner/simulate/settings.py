"""The settings of the simulated engine: one table of them, read from a candidate or from a command line."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from autotuner.core import Candidate, Value
from autotuner.errors import ConfigError
from autotuner.experiment import SimulationOptions
from autotuner.predict.hardware import GpuSpec, find_gpu
from autotuner.predict.shape import DEFAULT_MODEL
from autotuner.simulate.faults import Faults
from autotuner.simulate.scheduler import POLICIES
from autotuner.simulate.skew import Skew

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
QUANTIZATIONS = ("fp8", "int8", "int4", "fp4")


BAD_FLAG_STATUS = 2
"""Exit status of the server for a SettingsError."""


class SettingsError(Exception):
    """A value or a flag that the simulated engine does not take, in argparse's words."""


@dataclass(frozen=True)
class SimulationSettings:
    """What the simulated engine runs with; None where the engine chooses.

    `calibration_engine` is the engine whose calibrated efficiencies determine the step times.
    """

    model: str
    served_names: tuple[str, ...]
    host: str
    port: int
    gpu: GpuSpec
    tp: int
    pp: int
    memory_fraction: float
    max_running_requests: int
    max_batched_tokens: int | None
    max_model_len: int | None
    block_size: int
    kv_dtype: str
    weight_dtype: str | None
    prefix_caching: bool
    chunked_prefill: bool
    cuda_graph: bool
    policy: str
    seed: int
    load_seconds: float
    fixed_step_seconds: float | None
    faults: Faults
    skew: Skew
    calibration_engine: str = "vllm"

    @classmethod
    def of(
        cls, candidate: Candidate, model: str, simulation: SimulationOptions, extra_args: Sequence[str] = ()
    ) -> SimulationSettings:
        """The settings of a candidate of this engine; SettingsError for what it does not take.

        `extra_args` are a part of a command line, which overrides the rest.
        """
        values = {option.dest: option.default_value for option in OPTIONS.values()}
        for name, value in {**candidate.parameters, **simulation.by_flag, "model": model}.items():
            option = OPTIONS.get(name.replace("_", "-"))
            if option is None:
                raise SettingsError(f"{PROGRAM}: error: unrecognized arguments: --{name}")
            if value is not None:
                values[option.dest] = option.from_value(value)
        if extra_args:
            values = vars(build_parser().parse_args(extra_args, argparse.Namespace(**values)))
        return _from_values(values)


@dataclass(frozen=True)
class Option:
    """One setting, named as its parameter and its flag; `field` is its name in the settings where that differs.

    `read` raises ValueError or ConfigError. A setting that is true or false by default is a switch.
    """

    name: str
    help: str
    default: Any = None
    read: Callable[[str], Any] = str
    choices: Collection[str] = ()
    metavar: str | None = None
    field: str = ""

    @property
    def dest(self) -> str:
        return self.name.replace("-", "_")

    @property
    def default_value(self) -> Any:
        return self.parse(self.default) if isinstance(self.default, str) else self.default

    def parse(self, text: str) -> Any:
        """The value of an argument; ArgumentTypeError when it is not valid."""
        if self.choices and text not in self.choices:
            raise argparse.ArgumentTypeError(f"invalid choice: {text!r} (choose from {', '.join(self.choices)})")
        try:
            return self.read(text)
        except (ValueError, ConfigError) as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    def from_value(self, value: Value) -> Any:
        """The value of a candidate's parameter; SettingsError when it is not valid."""
        if isinstance(self.default, bool):
            return bool(value)
        try:
            return self.parse(str(value))
        except argparse.ArgumentTypeError as error:
            raise SettingsError(f"{PROGRAM}: error: argument --{self.name}: {error}") from error

    def add_to(self, group: argparse._ArgumentGroup) -> None:
        if isinstance(self.default, bool):
            group.add_argument(
                f"--{self.name}", action=argparse.BooleanOptionalAction, default=self.default, help=self.help
            )
            return
        # not argparse's choices, which are compared with what `read` returns
        metavar = self.metavar or (f"{{{','.join(self.choices)}}}" if self.choices else None)
        group.add_argument(f"--{self.name}", type=self.parse, default=self.default, metavar=metavar, help=self.help)


def _number(kind: Callable[[str], float], is_valid: Callable[[float], bool], words: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = kind(text)
        if not is_valid(value):
            raise ValueError(f"{text} is not {words}")
        return value

    return read


def _milliseconds(text: str) -> float:
    return _duration(text) / 1000


_positive_int = _number(int, lambda value: value >= 1, "at least 1")
_count = _number(int, lambda value: value >= 0, "at least 0")
_duration = _number(float, lambda value: 0 <= value < math.inf, "a number of at least 0")
_probability = _number(float, lambda value: 0 <= value <= 1, "between 0 and 1")
_fraction = _number(float, lambda value: 0 < value <= 1, "above 0 and at most 1")
_port = _number(int, lambda value: 0 <= value <= 65535, "a port")

SERVER_OPTIONS = (
    Option("model", "bundled model name, or a folder or file with a config.json", DEFAULT_MODEL),
    Option("host", "address to listen on", "127.0.0.1"),
    Option("port", "port to listen on; 0 for any free port", 8000, _port),
)
ENGINE_OPTIONS = (
    Option("tp-size", "tensor-parallel size", 1, _positive_int, field="tp"),
    Option("pp-size", "pipeline-parallel size", 1, _positive_int, field="pp"),
    Option(
        "mem-fraction-static",
        "fraction of GPU memory for weights and KV cache",
        0.9,
        _fraction,
        field="memory_fraction",
    ),
    Option("max-running-requests", "maximum number of sequences in a batch", 256, _positive_int),
    Option(
        "max-batched-tokens",
        "maximum tokens per iteration; default: 8192, or the model length without chunked prefill",
        None,
        _positive_int,
    ),
    Option("max-model-len", "maximum tokens of a request; default: the model's, or what fits", None, _positive_int),
    Option("kv-block-size", "tokens per KV cache block", 16, _positive_int, field="block_size"),
    Option(
        "kv-cache-dtype",
        "data type of the KV cache",
        "auto",
        KV_DTYPES.__getitem__,
        choices=KV_DTYPES,
        field="kv_dtype",
    ),
    Option(
        "quantization",
        "data type of the weights; default: the checkpoint's",
        choices=QUANTIZATIONS,
        field="weight_dtype",
    ),
    Option("prefix-caching", "reuse the KV cache of shared prefixes", True),
    Option("enable-chunked-prefill", "mix prompt chunks and decodes in one batch", True, field="chunked_prefill"),
    Option("cuda-graph", "decode with CUDA graphs", True),
    Option(
        "schedule-policy", "order in which waiting requests are scheduled", "fcfs", choices=POLICIES, field="policy"
    ),
)
SIMULATION_OPTIONS = (
    Option("gpu", "GPU type to simulate", "h100_sxm", find_gpu),
    Option("seed", "random seed of the faults", 0, int),
    Option("load-seconds", "seconds to load the weights", 1.0, _duration),
    Option(
        "fixed-step-ms",
        "fixed milliseconds per iteration, whatever the batch",
        None,
        _milliseconds,
        field="fixed_step_seconds",
    ),
)
SKEW_OPTIONS = (
    Option("skew-seed", "random seed of the --skew-sd factors", 0, int, field="seed"),
    Option(
        "skew-sd",
        "multiply each cost by a log-normal factor with this standard deviation",
        0.0,
        _duration,
        field="sd",
    ),
)
_after = partial(Option, read=_count, metavar="N")
_share = partial(Option, default=0.0, read=_probability, metavar="P")
FAULT_OPTIONS = (
    Option("fault-start-delay", "additional seconds until ready", 0.0, _duration, field="start_delay"),
    _after("fault-crash-after", "crash on the request after N", field="crash_after"),
    _after("fault-hang-after", "stop emitting tokens on the request after N", field="hang_after"),
    _share("fault-rate-limited", "fraction of requests to answer with 429", field="rate_limited"),
    _share("fault-server-error", "fraction of requests to answer with 500", field="server_error"),
    _share("fault-malformed", "fraction of requests to answer with malformed JSON", field="malformed"),
    _share("fault-early-stop", "fraction of requests to stop before the requested length", field="early_stop"),
)
OPTION_GROUPS = {
    "server": SERVER_OPTIONS,
    "engine": ENGINE_OPTIONS,
    "simulation": (*SIMULATION_OPTIONS, *SKEW_OPTIONS, *FAULT_OPTIONS),
}
OPTIONS = {option.name: option for options in OPTION_GROUPS.values() for option in options}
"""Every setting but the served names, by its flag without the dashes."""


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
    for title, options in OPTION_GROUPS.items():
        group = parser.add_argument_group(title)
        for option in options:
            option.add_to(group)
        if title == "server":
            group.add_argument(
                "--served-model-name",
                nargs="+",
                metavar="NAME",
                help="model names that clients may use; default: --model",
            )
    return parser


def parse_settings(argv: Sequence[str] | None = None) -> SimulationSettings:
    """Parse the command line; SettingsError, with the usage, for one that is not valid."""
    return _from_values(vars(build_parser().parse_args(argv)))


def _from_values(values: Mapping[str, Any]) -> SimulationSettings:
    def fields(*options: Option) -> dict[str, Any]:
        return {option.field or option.dest: values[option.dest] for option in options}

    return SimulationSettings(
        **fields(*SERVER_OPTIONS, *ENGINE_OPTIONS, *SIMULATION_OPTIONS),
        served_names=tuple(values.get("served_model_name") or [values["model"]]),
        skew=Skew(**fields(*SKEW_OPTIONS)),
        faults=Faults(**fields(*FAULT_OPTIONS)),
    )
