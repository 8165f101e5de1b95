"""Rows of a table of deployments: read as engines ran them, predicted one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping

from autotuner.errors import AutotuneError, ConfigError
from autotuner.predict.calibration import generation_of
from autotuner.predict.hardware import Gpu, gpu
from autotuner.predict.layout import Layout, dtypes_of
from autotuner.predict.model_on_gpus import Deployment, deployment
from autotuner.predict.predict import Prediction, closed_loop
from autotuner.predict.shape import ModelShape, model_shape

TIMES = ("pred_ttft_ms", "pred_tpot_ms", "pred_ttft_lo", "pred_ttft_hi", "pred_tpot_lo", "pred_tpot_hi")
"""Columns of predictions, in milliseconds."""
PREDICTED = (*TIMES, "pred_error")
FRACTION = 0.92
"""Share of the memory engines are given in such tables, by where their queues begin."""
LENGTHS = 0.9
"""Mean length of their requests, whose lengths are drawn evenly from 80% to 100% of the nominal ones."""
MOST = 1e12
"""No count of a row is above this; what is, is a mistake or infinite."""
POOL_TP = 4
"""GPUs per worker assumed where only the size of a pool of workers is told."""


def _count(row: Mapping[str, str], field: str, default: int | None = None) -> int:
    text = (row.get(field) or "").strip()
    if text.lower() in ("", "nan"):
        if default is None:
            raise ConfigError(f"The row lacks {field}.")
        return default
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{field} is '{text[:40]}', not a number.") from None
    if not 1 <= value < MOST or value != int(value):
        raise ConfigError(f"{field} must be a whole number of at least 1, not {text}.")
    return int(value)


def layout_of(row: Mapping[str, str], shape: ModelShape, kind: Gpu) -> tuple[Layout, int]:
    """How a row's model was spread, and how many such workers it had.

    Public tables multiply expert groups into their counts: attention over 8 GPUs whose experts
    are in 8 groups on the same 8 is written as 64 GPUs. Such a row is read as the 8 it ran on;
    a tp beyond a node that divides no head is a pool of smaller workers.
    """
    tp, pp, dp = _count(row, "tp_size", 1), _count(row, "pp_size", 1), _count(row, "dp_size", 1)
    moe_tp, ep = _count(row, "moe_tp_size", tp * dp), _count(row, "moe_ep_size", 1)
    root = math.isqrt(tp * dp)
    if root * root == tp * dp and root > 1:
        beyond = tp * dp > kind.gpus_per_node
        if beyond and (moe_tp == ep == root or tp == dp == root):
            return (Layout(dp=root, ep=root) if tp == 1 else Layout(tp=root, ep=root)), 1
        if tp == 1 and moe_tp == ep == root == 2:
            return Layout(dp=2, ep=2), 1
    if tp > kind.gpus_per_node and shape.heads % tp:
        return Layout(tp=POOL_TP), max(1, tp * dp // POOL_TP)
    if shape.experts and moe_tp * ep > tp * dp:
        return Layout(tp=tp, pp=pp, dp=moe_tp * ep // tp, moe_tp=moe_tp, ep=ep), 1
    return Layout(tp=tp, pp=pp, dp=dp, moe_tp=moe_tp, ep=ep if shape.experts else 1), 1


def deployment_of(row: Mapping[str, str]) -> tuple[Deployment, int]:
    """The deployment a row describes, and how many workers share its load."""
    for field in ("model", "gpu", "engine"):
        if not (row.get(field) or "").strip():
            raise ConfigError(f"The row lacks {field}.")
    shape, kind = model_shape(row["model"].strip()), gpu(row["gpu"])
    layout, workers = layout_of(row, shape, kind)
    engine = row["engine"].strip().lower()
    gemm = (row.get("gemm_dtype") or "").strip() or "bf16"
    moe = (row.get("moe_dtype") or "").strip() or "bf16"
    if not shape.experts:
        moe = gemm
    types = dtypes_of(shape, kind, gemm=gemm, moe=moe)
    latent = any(each.latent for each in shape.attentions)
    if engine == "sglang":
        quantised = latent and types.dense != "bf16" and generation_of(kind) == "blackwell"
    else:
        quantised = gemm.startswith(("fp8", "nvfp4")) and (types.dense != "bf16" or latent)
    version = (row.get("engine_version") or "").strip() or None
    name, of = row["model"].strip(), kind.name
    return deployment(name, of, layout, gemm, moe, "fp8" if quantised else None, engine, version, FRACTION), workers


def predict_row(row: Mapping[str, str]) -> Prediction:
    """Predict one row; raises AutotuneError saying what is wrong with it."""
    deployment, workers = deployment_of(row)
    load = load_of(_count(row, "concurrency"), workers)
    isl, osl, pool = _count(row, "isl"), _count(row, "osl"), workers > 1
    return closed_loop(deployment, isl=isl, osl=osl, concurrency=load, lengths=LENGTHS, apart=pool)


def load_of(concurrency: int, workers: int) -> int:
    """Requests in flight on one worker; half of a pool's workers prefill and half decode."""
    return max(1, round(concurrency / max(1.0, workers / 2))) if workers > 1 else concurrency


def predicted(row: Mapping[str, str]) -> dict[str, str]:
    """The row with the columns of PREDICTED; an error is in its own column and stops nothing."""
    try:
        found = predict_row(row)
    except AutotuneError as error:
        return {**row, **dict.fromkeys(PREDICTED, ""), "pred_error": str(error)}
    times = (found.ttft, found.tpot, *found.ttft_interval, *found.tpot_interval)
    return {**row, **dict(zip(TIMES, [f"{1000 * value:.4f}" for value in times], strict=True)), "pred_error": ""}
