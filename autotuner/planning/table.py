"""Predictions of the rows of a table of deployments, for `autotune predict table`."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from autotuner.errors import AutotuneError, ConfigError
from autotuner.predict.calibration import gpu_generation
from autotuner.predict.hardware import GpuSpec, find_gpu
from autotuner.predict.harness import INFERENCEX, Harness, ServerFlags, harness_from_row, inferencex_flags
from autotuner.predict.layout import Layout, resolve_dtypes
from autotuner.predict.model_on_gpus import ModelOnGpus, model_on_gpus
from autotuner.predict.predict import Prediction, predict_closed_loop
from autotuner.predict.shape import ModelShape, model_shape

if TYPE_CHECKING:
    from pandas import DataFrame

TIME_COLUMNS = ("pred_ttft_ms", "pred_tpot_ms", "pred_ttft_lo", "pred_ttft_hi", "pred_tpot_lo", "pred_tpot_hi")
"""Columns of predicted means and 80% intervals, in milliseconds."""
PREDICTION_COLUMNS = (*TIME_COLUMNS, "pred_error")
READ_COLUMNS = (
    "model",
    "gpu",
    "engine",
    "engine_version",
    "gemm_dtype",
    "moe_dtype",
    "isl",
    "osl",
    "concurrency",
    "tp_size",
    "pp_size",
    "dp_size",
    "moe_tp_size",
    "moe_ep_size",
)
"""Columns of a row that its prediction depends on; it may have others, such as what was measured."""
OTHER_COLUMN_NAMES = {
    "tp": "tp_size",
    "tensor_parallel_size": "tp_size",
    "pp": "pp_size",
    "pipeline_parallel_size": "pp_size",
    "dp": "dp_size",
    "data_parallel_size": "dp_size",
    "ep": "moe_ep_size",
    "ep_size": "moe_ep_size",
    "moe_tp": "moe_tp_size",
    "runtime": "engine",
    "version": "engine_version",
    "gpu_type": "gpu",
    "model_name": "model",
    "dtype": "gemm_dtype",
    "input_length": "isl",
    "output_length": "osl",
}
"""Names that such columns have elsewhere, and theirs here."""
MEMORY_FRACTION = 0.92
"""Memory fraction of the measured rows, read off the loads at which their requests begin to queue."""
MAX_COUNT = 1e12
"""A larger count in a row is a mistake or infinite; chosen by hand."""
ZERO_IS_NONE = ("moe_tp_size", "moe_ep_size")
"""Sizes of experts that tables write as 0 for dense models."""
POOL_WORKER_TP = 4
"""GPUs per worker assumed where a row has only the GPUs of a whole pool; the pools of GB200 have nodes of 4."""


def _read_count(row: Mapping[str, str], field: str, default: int | None = None) -> int:
    text = (row.get(field) or "").strip()
    if text.lower() in ("", "nan"):
        if default is None:
            raise ConfigError(f"The row lacks {field}.")
        return default
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{field} is '{text[:40]}', not a number.") from None
    if value == 0 and field in ZERO_IS_NONE and default is not None:
        return default
    if not 1 <= value < MAX_COUNT or value != int(value):
        raise ConfigError(f"{field} must be a whole number of at least 1, not {text}.")
    return int(value)


def layout_from_row(row: Mapping[str, str], shape: ModelShape, gpu: GpuSpec) -> tuple[Layout, int]:
    """The layout of one worker of a row, and the number of workers.

    Public tables multiply the expert-parallel size into their counts: attention over 8 GPUs with
    ep 8 on the same 8 is written as 64 GPUs. Such a row is read as the 8 it ran on; a tp beyond a
    node that does not divide the attention heads is a pool of smaller workers.
    """
    tp, pp, dp = _read_count(row, "tp_size", 1), _read_count(row, "pp_size", 1), _read_count(row, "dp_size", 1)
    moe_tp, ep = _read_count(row, "moe_tp_size", tp * dp), _read_count(row, "moe_ep_size", 1)
    root = math.isqrt(tp * dp)
    if root * root == tp * dp and root > 1:
        beyond = tp * dp > gpu.gpus_per_node
        if beyond and (moe_tp == ep == root or tp == dp == root):
            return (Layout(dp=root, ep=root) if tp == 1 else Layout(tp=root, ep=root)), 1
        if tp == 1 and moe_tp == ep == root == 2:
            return Layout(dp=2, ep=2), 1
    if tp > gpu.gpus_per_node and shape.heads % tp:
        return Layout(tp=POOL_WORKER_TP), max(1, tp * dp // POOL_WORKER_TP)
    if shape.experts and moe_tp * ep > tp * dp:
        return Layout(tp=tp, pp=pp, dp=moe_tp * ep // tp, moe_tp=moe_tp, ep=ep), 1
    return Layout(tp=tp, pp=pp, dp=dp, moe_tp=moe_tp, ep=ep if shape.experts else 1), 1


def model_from_row(row: Mapping[str, str]) -> tuple[ModelOnGpus, int]:
    """The deployment of one worker of a row, and how many workers share its load."""
    for field in ("model", "gpu", "engine"):
        if not (row.get(field) or "").strip():
            raise ConfigError(f"The row lacks {field}.")
    name, gpu = row["model"].strip(), find_gpu(row["gpu"])
    shape = model_shape(name)
    layout, workers = layout_from_row(row, shape, gpu)
    engine = row["engine"].strip().lower()
    gemm = (row.get("gemm_dtype") or "").strip() or "bf16"
    moe = (row.get("moe_dtype") or "").strip() or "bf16"
    if not shape.experts:
        moe = gemm
    dtypes = resolve_dtypes(shape, gemm_dtype=gemm, moe_dtype=moe)
    has_mla = any(kind.is_latent for kind in shape.attentions)
    if engine == "sglang":
        fp8_cache = has_mla and dtypes.mlp != "bf16" and gpu_generation(gpu) == "blackwell"
    else:
        fp8_cache = gemm.startswith(("fp8", "nvfp4")) and (dtypes.mlp != "bf16" or has_mla)
    kv, version = "fp8" if fp8_cache else None, (row.get("engine_version") or "").strip() or None
    return model_on_gpus(name, gpu.name, layout, gemm, moe, kv, engine, version, MEMORY_FRACTION), workers


def with_server_flags(deployment: ModelOnGpus, row: Mapping[str, str], harness: Harness) -> ModelOnGpus:
    """The deployment with the row's max_batched_tokens, max_running_requests and recv_interval, else the harness's."""
    flags = ServerFlags(deployment.max_batched_tokens)
    if harness.name == INFERENCEX.name:
        flags = inferencex_flags(
            deployment.engine,
            deployment.shape.name,
            is_blackwell=gpu_generation(deployment.gpu) == "blackwell",
            in_flight=_read_count(row, "concurrency"),
            isl=_read_count(row, "isl"),
        )
    most_running = _read_count(row, "max_running_requests", 0) or None
    return replace(
        deployment,
        max_batched_tokens=_read_count(row, "max_batched_tokens", flags.tokens_per_step),
        recv_interval=_read_count(row, "recv_interval", flags.recv_interval),
        max_running_requests=most_running,
    )


def predict_row(row: Mapping[str, str]) -> Prediction:
    """Predict the deployment and load in one row of a CSV; raises AutotuneError saying what is wrong with it."""
    deployment, workers = model_from_row(row)
    concurrency = _read_count(row, "concurrency")
    harness = harness_from_row(row, concurrency)
    return predict_closed_loop(
        with_server_flags(deployment, row, harness),
        concurrency=worker_concurrency(concurrency, workers),
        isl=_read_count(row, "isl"),
        osl=_read_count(row, "osl"),
        harness=harness,
        separate_prefill=workers > 1,
    )


def worker_concurrency(concurrency: int, workers: int) -> int:
    """Requests in flight on one worker; half of a pool's workers prefill and half decode."""
    return max(1, round(concurrency / max(1.0, workers / 2))) if workers > 1 else concurrency


def predicted_columns(row: Mapping[str, str]) -> dict[str, str]:
    """The values of PREDICTION_COLUMNS for a row; an error goes into its own column."""
    try:
        prediction = predict_row(row)
    except AutotuneError as error:
        return {**dict.fromkeys(TIME_COLUMNS, ""), "pred_error": str(error)}
    times = (prediction.ttft, prediction.tpot, *prediction.ttft_interval, *prediction.tpot_interval)
    return {**dict(zip(TIME_COLUMNS, [f"{1000 * value:.4f}" for value in times], strict=True)), "pred_error": ""}


def misnamed_columns(names: Iterable[str]) -> dict[str, str]:
    """Columns that are not read and are probably meant to be, each with the name under which it would be.

    A column is one where it has that name elsewhere, or almost has it, and no column has it itself.
    """
    present = {name: name.strip().lower().replace("-", "_").replace(" ", "_") for name in names}
    missing = [column for column in READ_COLUMNS if column not in present]
    meant = {
        name: _meant_column(normalized, missing) for name, normalized in present.items() if name not in READ_COLUMNS
    }
    return {name: column for name, column in meant.items() if column is not None}


def _meant_column(name: str, missing: Sequence[str]) -> str | None:
    column = OTHER_COLUMN_NAMES.get(name, name)
    near = [column] if column in missing else difflib.get_close_matches(name, missing, n=1, cutoff=0.8)
    return near[0] if near else None


def with_predictions(table: DataFrame) -> DataFrame:
    """The table of texts with PREDICTION_COLUMNS added."""
    rows = cast("list[dict[str, str]]", table.to_dict("records"))
    predictions = [predicted_columns(row) for row in rows]
    return table.assign(**{name: [columns[name] for columns in predictions] for name in PREDICTION_COLUMNS})
