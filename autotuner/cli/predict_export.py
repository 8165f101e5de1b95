"""Predictions as JSON and CSV."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

    from autotuner.planning.serving_option import ServingOption, WorkerPool
    from autotuner.predict.performance import Performance


def read_csv(path: Path) -> DataFrame:
    """A CSV file with all cells as texts, empty where a row is short."""
    import pandas as pd

    from autotuner.errors import UsageError, file_error_reason

    try:
        # of a first row that is too long pandas would only warn, and drop its last cells
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            return pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig").fillna("")
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        is_malformed = not isinstance(error, OSError | UnicodeDecodeError)
        why = _malformed_reason(path) if is_malformed else file_error_reason(error)
        raise UsageError(f"Cannot read {path}.", why=why, remedy="Give a CSV file in UTF-8.") from error


def _malformed_reason(path: Path) -> str:
    """What is wrong with a text that is no table of comma-separated values, with the first such line."""
    import csv

    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        try:
            columns = next((row for row in reader if row), [])
            for row in reader:
                if len(row) > len(columns):
                    return f"Line {reader.line_num} has {len(row)} cells, and there are {len(columns)} columns."
        except csv.Error:
            return f"Line {reader.line_num} is not CSV: check its quotation marks."
    return "It is no table of columns with names." if columns else "It is empty."


def write_csv(table: DataFrame, path: Path) -> None:
    """Write a table, in a folder that need not exist."""
    from autotuner.errors import UsageError, file_error_reason

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False, lineterminator="\n")
    except OSError as error:
        raise UsageError(
            f"Cannot write {path}.", why=file_error_reason(error), remedy="Choose another --output."
        ) from error


def options_table(options: Sequence[ServingOption]) -> DataFrame:
    """One row for each option; whole numbers stay whole beside empty cells."""
    import pandas as pd

    return pd.DataFrame([_table_row(option) for option in options], dtype=object)


def _table_row(option: ServingOption) -> dict[str, Any]:
    data = option_json(option)
    for name in ("ttft", "tpot"):
        data[f"{name}_low"], data[f"{name}_high"] = data.pop(f"{name}_interval")
    for pool in ("prefill", "serving"):
        pool_data = data.pop(pool) or {}
        data |= {
            f"{pool}_{name}": pool_data.get(name)
            for name in ("gpu", "tp", "pp", "dp", "ep", "workers", "in_flight_each")
        }
    return data


def option_json(option: ServingOption) -> dict[str, Any]:
    """A serving option for JSON, in seconds, tokens/s and requests/s."""
    return {
        "mode": option.mode,
        "prefill": None if option.prefill is None else _pool_json(option.prefill),
        "serving": _pool_json(option.serving),
        "gpus": option.gpus,
        "in_flight": option.in_flight,
        **performance_json(option.performance, option.budget),
        "kv_transfer": option.transfer_seconds,
        "price_per_hour": option.price,
        "cost_per_million_output_tokens": option.cost,
        "meets_target": option.meets_target,
        "excess": option.target_ratio,
        "binding": option.binding or None,
        "source": option.source,
    }


def performance_json(performance: Performance, gpus: int) -> dict[str, Any]:
    """Latency and throughput of this many GPUs for JSON, in seconds, tokens/s and requests/s; None is infinite."""
    return {
        "ttft": performance.ttft,
        "tpot": performance.tpot,
        "ttft_interval": [bound if math.isfinite(bound) else None for bound in performance.ttft_interval],
        "tpot_interval": [bound if math.isfinite(bound) else None for bound in performance.tpot_interval],
        "request_throughput": performance.requests,
        "output_throughput": performance.throughput,
        "output_throughput_per_gpu": performance.throughput / gpus,
    }


def _pool_json(pool: WorkerPool) -> dict[str, Any]:
    layout = pool.layout
    return {
        "gpu": pool.gpu.name,
        "tp": layout.tp,
        "pp": layout.pp,
        "dp": layout.dp,
        "ep": layout.ep_size,
        "workers": pool.workers,
        "in_flight_each": pool.batch,
    }
