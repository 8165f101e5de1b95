"""The server's command line: an engine's flags, the simulated GPU, and faults."""

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
    """The command line, typed. None means that the engine chooses; `engine` is whose fitted constants time it."""

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
    """Names a default only where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; every flag is listed by --help."""
    top = argparse.ArgumentParser(
        prog=PROGRAM,
        description="A simulated inference engine: OpenAI-compatible HTTP in real time, step times computed from a "
        "roofline of the named GPU and model. It computes no tokens and needs no GPU.",
        allow_abbrev=False,
        formatter_class=_DefaultsHelpFormatter,
    )
    _add_server(top.add_argument_group("server"))
    _add_engine(top.add_argument_group("engine"))
    _add_simulation(top.add_argument_group("simulation"))
    return top


def _add_server(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model", default=DEFAULT_MODEL, help="bundled model name, or a folder or file with a config.json"
    )
    group.add_argument("--served-model-name", nargs="+", metavar="NAME", help="names clients may use; default: --model")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on")
    group.add_argument("--port", type=_port, default=8000, help="port to listen on; 0 for any that is free")


def _add_engine(group: argparse._ArgumentGroup) -> None:
    switch = argparse.BooleanOptionalAction
    group.add_argument("--tp-size", type=_positive_int, default=1, help="GPUs each layer is divided over")
    group.add_argument("--pp-size", type=_positive_int, default=1, help="groups of GPUs the layers are divided over")
    group.add_argument(
        "--mem-fraction-static", type=_fraction, default=0.9, help="share of GPU memory for weights and KV cache"
    )
    group.add_argument("--max-running-requests", type=_positive_int, default=256, help="most sequences in a batch")
    group.add_argument(
        "--max-batched-tokens",
        type=_positive_int,
        help="most tokens in an iteration; default: 8192, or the model length without chunked prefill",
    )
    group.add_argument(
        "--max-model-len", type=_positive_int, help="most tokens of a request; default: the model's, or what fits"
    )
    group.add_argument("--kv-block-size", type=_positive_int, default=16, help="tokens per KV cache block")
    group.add_argument("--kv-cache-dtype", choices=KV_DTYPES, default="auto", help="type of the KV cache")
    group.add_argument("--quantization", choices=QUANTIZATIONS, help="type of the weights; default: the checkpoint's")
    group.add_argument("--prefix-caching", action=switch, default=True, help="reuse the KV cache of shared prefixes")
    group.add_argument("--enable-chunked-prefill", action=switch, default=True, help="mix pieces of prompts and decode")
    group.add_argument("--cuda-graph", action=switch, default=True, help="replay captured launches in small batches")
    group.add_argument(
        "--schedule-policy", choices=POLICIES, default="fcfs", help="order in which waiting requests start"
    )


def _add_simulation(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--gpu", type=_gpu, default="h100_sxm", help="GPU type that is simulated")
    group.add_argument("--seed", type=int, default=0, help="seed of the faults")
    group.add_argument("--skew-seed", type=int, default=0, help="seed of the factors that --skew-sd asks for")
    group.add_argument(
        "--skew-sd",
        type=_non_negative_float,
        default=0.0,
        help="distort each cost by a log-normal factor of this standard deviation",
    )
    group.add_argument(
        "--load-seconds", type=_non_negative_float, default=1.0, help="how long loading the weights takes"
    )
    group.add_argument(
        "--fixed-step-ms", type=_non_negative_float, help="milliseconds of every iteration, whatever is in it"
    )
    group.add_argument("--fault-start-delay", type=_non_negative_float, default=0.0, help="seconds more until ready")
    group.add_argument("--fault-crash-after", type=_non_negative_int, metavar="N", help="die on the request after N")
    group.add_argument(
        "--fault-hang-after", type=_non_negative_int, metavar="N", help="stop emitting on the request after N"
    )
    for name, what in (
        ("rate-limited", "answer 429"),
        ("server-error", "answer 500"),
        ("malformed", "send broken JSON"),
        ("early-stop", "stop before the length asked for"),
    ):
        group.add_argument(
            f"--fault-{name}", type=_probability, default=0.0, metavar="P", help=f"share of requests to {what}"
        )


def parse_settings(argv: Sequence[str] | None = None) -> Settings:
    """Read the command line; a bad flag ends the process with status 2, as argparse does."""
    given = build_parser().parse_args(argv)
    return Settings(
        model=given.model,
        served_names=tuple(given.served_model_name or [given.model]),
        host=given.host,
        port=given.port,
        gpu=given.gpu,
        tp=given.tp_size,
        pp=given.pp_size,
        memory_fraction=given.mem_fraction_static,
        max_running_requests=given.max_running_requests,
        max_batched_tokens=given.max_batched_tokens,
        max_model_len=given.max_model_len,
        block_size=given.kv_block_size,
        kv_dtype=KV_DTYPES[given.kv_cache_dtype],
        weight_dtype=given.quantization,
        prefix_caching=given.prefix_caching,
        chunked_prefill=given.enable_chunked_prefill,
        cuda_graph=given.cuda_graph,
        policy=given.schedule_policy,
        seed=given.seed,
        load_seconds=given.load_seconds,
        fixed_step_seconds=None if given.fixed_step_ms is None else given.fixed_step_ms / 1000,
        skew=Skew(given.skew_seed, given.skew_sd),
        faults=Faults(
            start_delay=given.fault_start_delay,
            crash_after=given.fault_crash_after,
            hang_after=given.fault_hang_after,
            rate_limited=given.fault_rate_limited,
            server_error=given.fault_server_error,
            malformed=given.fault_malformed,
            early_stop=given.fault_early_stop,
        ),
    )
