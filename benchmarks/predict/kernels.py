"""Fit kernel constants on the measured kernel tables of the PyPI wheel aiconfigurator-core, and write them.

    pip download --no-deps aiconfigurator-core==0.12.0
    python benchmarks/predict/kernels.py aiconfigurator_core-0.12.0-*.whl autotuner/predict/kernels.yaml

Needs pandas with pyarrow. Of the tables (Apache-2.0, NVIDIA) only the constants are kept: inverse efficiencies against
the data sheets of gpus.yaml, and microseconds per kernel.
"""

from __future__ import annotations

import io
import math
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from autotuner.predict.efficiencies import SMOOTH_MAX_POWER
from autotuner.predict.hardware import GpuSpec, gpus
from autotuner.predict.operators import ONESHOT_BYTES, TILE_ROWS
from autotuner.predict.shape import DTYPE_BYTES

ENGINES = ("vllm", "sglang", "trtllm")
TABLE_GPUS = {
    "a100_sxm": "a100_sxm",
    "h100_sxm": "h100_sxm",
    "h200_sxm": "h200_sxm",
    "b200_sxm": "b200_sxm",
    "b300_sxm": "b300_sxm",
    "gb200": "gb200",
    "gb300": "gb300",
    "l40s": "l40s",
    "rtx_pro_6000_server": "rtx_pro_6000_server",
}
ROWS = 3000
"""Rows sampled of a lane."""
MIN_ROWS = 1000
"""Rows of a type in a version of a table from which older versions are not read for it."""
GEMM_CAP, MOE_CAP = 4.0, 12.5
"""Times of the roofline above which the kernel of a table is not the one that engines run."""
CAP_SLACK_US = 10.0
MAX_LAUNCH_US = 8.0
"""A GEMM's fixed time at most: more is a quantisation of activations that engines fuse, or that static scales spare."""
GEMM_DTYPES = {
    "bfloat16": "bf16",
    "fp8": "fp8",
    "fp8_block": "fp8",
    "nvfp4": "fp4",
    "int8_wo": "int8",
    "int4_wo": "int4",
}
MOE_DTYPES = GEMM_DTYPES | {"w4a16_mxfp4": "fp4", "w4a8_mxfp4_mxfp8": "fp4"}

KINDS = {"prefill": "attention", "decode": "attention", "mla_prefill": "mla", "mla_decode": "mla"}
KINDS |= {"allreduce": "collective"}
"""The kind of kernels that stands before a kernel in the file."""

Lane = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Roofline seconds of arithmetic and of memory, and measured seconds."""


def read_tables(wheel: Path) -> Callable[[str, str, str, str], pd.DataFrame | None]:
    """A function that reads a table of (gpu, kind, engine, name), of each type the newest; None where there is none."""
    archive = zipfile.ZipFile(wheel)
    names = [name for name in archive.namelist() if name.endswith(".parquet")]

    def version(name: str) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", name.split("/")[-2])]

    def read(gpu: str, kind: str, engine: str, table: str) -> pd.DataFrame | None:
        fitting = [name for name in names if re.search(f"/{gpu}/{kind}/{engine}/[^/]*/{table}.parquet$", name)]
        if not fitting:
            return None
        column, tables, seen = f"{kind}_dtype", list[pd.DataFrame](), set[object]()
        for name in sorted(fitting, key=version, reverse=True):
            found = pd.read_parquet(io.BytesIO(archive.read(name)))
            if column not in found:
                return found
            tables.append(found[~found[column].isin(seen)])
            seen |= {dtype for dtype, count in found[column].value_counts().items() if count >= MIN_ROWS}
        return pd.concat(tables)

    return read


def sample(table: pd.DataFrame) -> pd.DataFrame:
    """At most ROWS rows, the same each time."""
    return table.sample(ROWS, random_state=0) if len(table) > ROWS else table


def fit_lane(lane: Lane, cap: float, start: tuple[float, float, float] = (1.5, 1.3, 4.0)) -> tuple[list[float], float]:
    """Inverse efficiencies of arithmetic and memory and launch microseconds, and the median error in per cent."""
    compute, memory, measured = lane
    capped = np.minimum(measured, cap * np.maximum(compute, memory) + CAP_SLACK_US * 1e-6)

    def predicted(logs: np.ndarray) -> Any:
        compute_factor, memory_factor, launch = np.exp(logs)
        power = SMOOTH_MAX_POWER
        busy = ((compute * compute_factor) ** power + (memory * memory_factor) ** power) ** (1 / power)
        return busy + launch * 1e-6

    def residual(logs: np.ndarray) -> np.ndarray:
        shrinkage = (logs - np.log(start)) / np.array([0.5, 0.3, 0.7]) * np.sqrt(len(capped)) * 0.02
        return np.concatenate([np.log(predicted(logs) / capped), shrinkage])

    bounds = (np.log((0.9, 0.9, 0.5)), np.log((8.0, 4.0, 70.0)))
    result = least_squares(residual, np.log(start), loss="soft_l1", f_scale=0.1, bounds=bounds)
    error = 100 * float(np.median(np.abs(predicted(result.x) / capped - 1)))
    return [float(value) for value in np.exp(result.x)], error


def gemm_lane(table: pd.DataFrame, gpu: GpuSpec, dtype: str) -> Lane:
    m, n, k = (table[name].to_numpy(float) for name in ("m", "n", "k"))
    rows = np.sqrt(m * m + TILE_ROWS**2)
    compute = 2 * rows * n * k / gpu.peak_flops(dtype)
    memory = (n * k * DTYPE_BYTES[dtype] + 2 * m * (n + k)) / gpu.bandwidth
    return compute, memory, table.latency.to_numpy(float) / 1000


def moe_lane(table: pd.DataFrame, gpu: GpuSpec, dtype: str) -> Lane:
    tokens, hidden, inter, top_k, experts, tp, ep = (
        table[name].to_numpy(float)
        for name in ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")
    )
    used = experts * (1 - (1 - top_k / experts) ** tokens)
    each = tokens * top_k / used
    weights = 3 * hidden * inter / tp
    compute = used / ep * np.sqrt(each * each + TILE_ROWS**2) * 2 * weights / gpu.peak_flops(dtype)
    memory = (used / ep * weights * DTYPE_BYTES[dtype] + 4 * tokens * top_k * hidden / ep) / gpu.bandwidth
    return compute, memory, table.latency.to_numpy(float) / 1000


def attention_lanes(context: pd.DataFrame, generation: pd.DataFrame, gpu: GpuSpec) -> tuple[Lane, Lane]:
    """Prefill and decode of grouped-query attention with a bf16 cache, full and without a window."""
    bf16 = gpu.peak_flops("bf16")
    lanes = []
    for table, is_decode in ((context, False), (generation, True)):
        kv_dtype = table.kv_cache_dtype == "bfloat16"
        if "window_size" in table:
            kv_dtype &= table.window_size.fillna(0) == 0
        if "head_dim" not in table:
            table = table.assign(head_dim=128)
        table = table[kv_dtype & table.head_dim.isin((64, 128)) & (table.num_key_value_heads > 0)]
        if is_decode:
            table = sample(table[table.step * table.batch_size >= 1024])
        else:
            table = sample(table[(table.isl >= 256) & (table.num_heads >= 4)])
        batch, heads, kv_heads, dim = (
            table[name].to_numpy(float) for name in ("batch_size", "num_heads", "num_key_value_heads", "head_dim")
        )
        length = table.step.to_numpy(float) + 1 if is_decode else table.isl.to_numpy(float)
        pairs = length if is_decode else length * (length + 1) / 2
        compute = 4 * batch * heads * dim * pairs / bf16
        memory = 2 * batch * kv_heads * dim * 2 * length / gpu.bandwidth * is_decode
        lanes.append((compute, memory, table.latency.to_numpy(float) / 1000))
    return lanes[0], lanes[1]


def mla_lanes(context: pd.DataFrame, generation: pd.DataFrame, gpu: GpuSpec) -> tuple[Lane, Lane]:
    """Prefill (key 192, value 128) and decode over a latent cache of 576 elements, in bf16."""
    bf16 = gpu.peak_flops("bf16")
    context = context[(context.kv_cache_dtype == "bfloat16") & (context.isl >= 256)]
    generation = generation[
        (generation.kv_cache_dtype == "bfloat16") & (generation.step * generation.batch_size >= 1024)
    ]
    context, generation = sample(context), sample(generation)
    batch, heads, length = (context[name].to_numpy(float) for name in ("batch_size", "num_heads", "isl"))
    pairs = length * (length + 1) / 2
    prefill = 2 * batch * heads * 320 * pairs / bf16, np.zeros(len(pairs))
    batch, heads, length = (generation[name].to_numpy(float) for name in ("batch_size", "num_heads", "step"))
    decode = 2 * batch * heads * 1088 * length / bf16, batch * length * 1152 / gpu.bandwidth
    return (*prefill, context.latency.to_numpy(float) / 1000), (*decode, generation.latency.to_numpy(float) / 1000)


def fit_allreduce(table: pd.DataFrame, gpu: GpuSpec) -> list[float]:
    """Microseconds of latency, and inverse efficiencies of large and of small messages."""
    if "backend" in table and table.backend.nunique() > 1:
        table = table[table.backend.str.contains("graph")]
    table = table[(table.num_gpus <= gpu.gpus_per_node) & (table.message_size <= 2**27)]
    count, elements = table.num_gpus.to_numpy(float), table.message_size.to_numpy(float)
    size, measured = 2 * elements, table.latency.to_numpy(float) / 1000
    ring = 2 * size * (count - 1) / count / gpu.intra_node
    oneshot = size * (count - 1) / gpu.intra_node / (1 + size / ONESHOT_BYTES)

    def residual(logs: np.ndarray) -> np.ndarray:
        latency, large, small = np.exp(logs)
        shrinkage = (logs - np.log((6.0, 1.3, 1.0))) * 0.3
        return np.concatenate([np.log((latency * 1e-6 + ring * large + oneshot * small) / measured), shrinkage])

    result = least_squares(residual, np.log((6.0, 1.3, 1.0)), loss="soft_l1", f_scale=0.2)
    return [float(value) for value in np.exp(result.x)]


def lanes_by_dtype(table: pd.DataFrame, column: str, names: dict[str, str]) -> dict[str, list[pd.DataFrame]]:
    result: dict[str, list[pd.DataFrame]] = {}
    for name, rows in table.groupby(column):
        if str(name) in names:
            result.setdefault(names[str(name)], []).append(sample(rows))
    return result


def fit_gpu_engine(
    read: Callable[..., pd.DataFrame | None], table_gpu: str, gpu: GpuSpec, engine: str
) -> dict[str, list[float]]:
    """All constants of one GPU type and engine; empty where the tables have none."""
    result: dict[str, list[float]] = {}
    gemm = read(table_gpu, "gemm", engine, "gemm_perf")
    if gemm is None:
        return result
    gemm = gemm[(gemm.m <= 16384) & (gemm.n >= 256) & (gemm.k >= 256) & (gemm.n <= 32768) & (gemm.k <= 32768)]
    for dtype, tables in lanes_by_dtype(gemm, "gemm_dtype", GEMM_DTYPES).items():
        fits = [fit_lane(gemm_lane(table, gpu, dtype), GEMM_CAP) for table in tables]
        constants, error = min(fits, key=lambda fit: fit[0][0] * fit[0][1] * fit[0][2] ** 0.5)
        print(table_gpu, engine, "gemm", dtype, np.round(constants, 2), f"{error:.1f}%", file=sys.stderr)
        constants[2] = min(constants[2], MAX_LAUNCH_US)
        result[f"gemm {dtype}"] = constants
    moe = read(table_gpu, "moe", engine, "moe_perf")
    if moe is not None:
        moe = moe[(moe.distribution == "balanced") & (moe.num_experts >= 32) & (moe.num_tokens <= 16384)]
        for dtype, tables in lanes_by_dtype(moe, "moe_dtype", MOE_DTYPES).items():
            fits = [
                fit_lane(moe_lane(table, gpu, dtype), MOE_CAP, (2.5, 1.5, 20.0)) for table in tables if len(table) > 100
            ]
            if fits:
                constants, error = min(fits, key=lambda fit: fit[0][0] * fit[0][1])
                print(table_gpu, engine, "moe", dtype, np.round(constants, 2), f"{error:.1f}%", file=sys.stderr)
                result[f"moe {dtype}"] = constants
    for kind, prefix, lanes_of in (("attention", "", attention_lanes), ("mla", "mla_", mla_lanes)):
        context = read(table_gpu, kind, engine, f"context_{kind}_perf")
        generation = read(table_gpu, kind, engine, f"generation_{kind}_perf")
        if context is None or generation is None:
            continue
        prefill_lane, decode_lane = lanes_of(context, generation, gpu)
        prefill, prefill_error = fit_lane(prefill_lane, math.inf, (2.0, 1.3, 8.0))
        decode, decode_error = fit_lane(decode_lane, math.inf, (2.0, 1.5, 6.0))
        errors = f"{prefill_error:.1f} {decode_error:.1f}%"
        print(table_gpu, engine, kind, np.round([*prefill, *decode], 2), errors, file=sys.stderr)
        result[f"{prefix}prefill"], result[f"{prefix}decode"] = prefill, decode
    allreduce = read(table_gpu, "comm", engine, "custom_allreduce_perf")
    if allreduce is not None:
        result["allreduce"] = fit_allreduce(allreduce, gpu)
        print(table_gpu, engine, "allreduce", np.round(result["allreduce"], 2), file=sys.stderr)
    return result


def engine_lines(constants: dict[str, list[float]]) -> list[str]:
    """A line of YAML for each kind of kernel."""
    kinds: dict[str, list[str]] = {}
    for key, values in constants.items():
        kind, _, dtype = key.partition(" ")
        kind, name = (kind, dtype) if dtype else (KINDS[kind], kind)
        kinds.setdefault(kind, []).append(f"{name}: [{', '.join(f'{value:.3g}' for value in values)}]")
    return [f"    {kind}: {{{', '.join(parts)}}}" for kind, parts in kinds.items()]


def main() -> None:
    read, table = read_tables(Path(sys.argv[1])), gpus()
    lines = [
        "# Fitted by benchmarks/predict/kernels.py on measured kernel tables; not edited by hand. Inverse efficiencies",
        "# of arithmetic and of memory (1: the data sheet), and microseconds per kernel, by GPU, engine, kernel and",
        "# type; of an all-reduce microseconds, and inverse efficiencies of large and of small messages.",
    ]
    for table_gpu, name in TABLE_GPUS.items():
        lines.append(f"{name}:")
        for engine in ENGINES:
            constants = fit_gpu_engine(read, table_gpu, table[name], engine)
            if constants:
                lines += [f"  {engine}:", *engine_lines(constants)]
    Path(sys.argv[2]).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
