"""The command line of the simulated server: engine flags, the simulated GPU, and faults."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

from autotuner.errors import ConfigError
from autotuner.predict.hardware import GpuSpec, find_gpu
from autotuner.predict.shape import DEFAULT_MODEL
from autotuner.simulate.faults import Faults
from autotuner.simulate.scheduler import POLICIES
from autotuner.simulate.skew import Skew

PROGRAM = "python -m autotuner.simulate.server"
NO_SKEW = Skew()
KV_DTYPES = {
    "auto": "bf16",
    "bfloat16": "bf16",
    "float16": "bf16",
    "fp8": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
}
QUANTIZATIONS = ("fp8", "int8", "int4", "fp4")


@dataclass(frozen=True)
class Settings:
    """The parsed command line; None where the engine chooses.

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
    calibration_engine: str = "vllm"
    skew: Skew = NO_SKEW


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def _non_negative_int(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def _non_negative_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return value


def _probability(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port")
    return value


def _gpu(text: str) -> GpuSpec:
    try:
        return find_gpu(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


class _DefaultsHelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Prints a default only for options that have one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the server's command line."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="A simulated inference engine: an OpenAI-compatible server in real time, with step times from a "
        "roofline model of the given GPU and model. It computes no tokens and needs no GPU.",
        allow_abbrev=False,
        formatter_class=_DefaultsHelpFormatter,
    )
    _add_server(parser.add_argument_group("server"))
    _add_engine(parser.add_argument_group("engine"))
    _add_simulation(parser.add_argument_group("simulation"))
    return parser


def _add_server(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model", default=DEFAULT_MODEL, help="bundled model name, or a folder or file with a config.json"
    )
    group.add_argument(
        "--served-model-name", nargs="+", metavar="NAME", help="model names that clients may use; default: --model"
    )
    group.add_argument("--host", default="127.0.0.1", help="address to listen on")
    group.add_argument("--port", type=_port, default=8000, help="port to listen on; 0 for any free port")


def _add_engine(group: argparse._ArgumentGroup) -> None:
    switch = argparse.BooleanOptionalAction
    group.add_argument("--tp-size", type=_positive_int, default=1, help="tensor-parallel size")
    group.add_argument("--pp-size", type=_positive_int, default=1, help="pipeline-parallel size")
    group.add_argument(
        "--mem-fraction-static", type=_fraction, default=0.9, help="fraction of GPU memory for weights and KV cache"
    )
    group.add_argument(
        "--max-running-requests", type=_positive_int, default=256, help="maximum number of sequences in a batch"
    )
    group.add_argument(
        "--max-batched-tokens",
        type=_positive_int,
        help="maximum tokens per iteration; default: 8192, or the model length without chunked prefill",
    )
    group.add_argument(
        "--max-model-len", type=_positive_int, help="maximum tokens of a request; default: the model's, or what fits"
    )
    group.add_argument("--kv-block-size", type=_positive_int, default=16, help="tokens per KV cache block")
    group.add_argument("--kv-cache-dtype", choices=KV_DTYPES, default="auto", help="data type of the KV cache")
    group.add_argument(
        "--quantization", choices=QUANTIZATIONS, help="data type of the weights; default: the checkpoint's"
    )
    group.add_argument("--prefix-caching", action=switch, default=True, help="reuse the KV cache of shared prefixes")
    group.add_argument(
        "--enable-chunked-prefill", action=switch, default=True, help="mix prompt chunks and decodes in one batch"
    )
    group.add_argument("--cuda-graph", action=switch, default=True, help="decode with CUDA graphs")
    group.add_argument(
        "--schedule-policy", choices=POLICIES, default="fcfs", help="order in which waiting requests are scheduled"
    )


def _add_simulation(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--gpu", type=_gpu, default="h100_sxm", help="GPU type to simulate")
    group.add_argument("--seed", type=int, default=0, help="random seed of the faults")
    group.add_argument("--skew-seed", type=int, default=0, help="random seed of the --skew-sd factors")
    group.add_argument(
        "--skew-sd",
        type=_non_negative_float,
        default=0.0,
        help="multiply each cost by a log-normal factor with this standard deviation",
    )
    group.add_argument("--load-seconds", type=_non_negative_float, default=1.0, help="seconds to load the weights")
    group.add_argument(
        "--fixed-step-ms", type=_non_negative_float, help="fixed milliseconds per iteration, whatever the batch"
    )
    group.add_argument(
        "--fault-start-delay", type=_non_negative_float, default=0.0, help="additional seconds until ready"
    )
    group.add_argument("--fault-crash-after", type=_non_negative_int, metavar="N", help="crash on the request after N")
    group.add_argument(
        "--fault-hang-after", type=_non_negative_int, metavar="N", help="stop emitting tokens on the request after N"
    )
    for name, effect in (
        ("rate-limited", "answer with 429"),
        ("server-error", "answer with 500"),
        ("malformed", "answer with malformed JSON"),
        ("early-stop", "stop before the requested length"),
    ):
        group.add_argument(
            f"--fault-{name}", type=_probability, default=0.0, metavar="P", help=f"fraction of requests to {effect}"
        )


def parse_settings(argv: Sequence[str] | None = None) -> Settings:
    """Parse the command line; an invalid flag raises SystemExit with status 2, as argparse does."""
    options = build_parser().parse_args(argv)
    return Settings(
        model=options.model,
        served_names=tuple(options.served_model_name or [options.model]),
        host=options.host,
        port=options.port,
        gpu=options.gpu,
        tp=options.tp_size,
        pp=options.pp_size,
        memory_fraction=options.mem_fraction_static,
        max_running_requests=options.max_running_requests,
        max_batched_tokens=options.max_batched_tokens,
        max_model_len=options.max_model_len,
        block_size=options.kv_block_size,
        kv_dtype=KV_DTYPES[options.kv_cache_dtype],
        weight_dtype=options.quantization,
        prefix_caching=options.prefix_caching,
        chunked_prefill=options.enable_chunked_prefill,
        cuda_graph=options.cuda_graph,
        policy=options.schedule_policy,
        seed=options.seed,
        load_seconds=options.load_seconds,
        fixed_step_seconds=None if options.fixed_step_ms is None else options.fixed_step_ms / 1000,
        skew=Skew(options.skew_seed, options.skew_sd),
        faults=Faults(
            start_delay=options.fault_start_delay,
            crash_after=options.fault_crash_after,
            hang_after=options.fault_hang_after,
            rate_limited=options.fault_rate_limited,
            server_error=options.fault_server_error,
            malformed=options.fault_malformed,
            early_stop=options.fault_early_stop,
        ),
    )
