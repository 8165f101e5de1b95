"""Ranked serving options as JSON and CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotuner.predict.serving_option import ServingOption, WorkerPool


def write_csv(folder: Path, options: Sequence[ServingOption]) -> None:
    """Write all options to options.csv in `folder`."""
    import csv

    from autotuner.cli import display
    from autotuner.errors import UsageError

    path = folder / "options.csv"
    rows = [_csv_row(option) for option in options]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise UsageError(f"Cannot write {path}.", why=str(error), remedy="Choose another --output.") from error
    display.note(f"Table: {path}")


def _csv_row(option: ServingOption) -> dict[str, Any]:
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
        "ttft": option.ttft,
        "tpot": option.tpot,
        "ttft_interval": [bound if math.isfinite(bound) else None for bound in option.ttft_interval],
        "tpot_interval": [bound if math.isfinite(bound) else None for bound in option.tpot_interval],
        "kv_transfer": option.transfer_seconds,
        "request_throughput": option.requests,
        "output_throughput": option.throughput,
        "output_throughput_per_gpu": option.throughput_per_gpu,
        "price_per_hour": option.price,
        "cost_per_million_output_tokens": option.cost,
        "meets_target": option.meets_target,
        "excess": option.target_ratio,
        "binding": option.binding or None,
        "source": option.source,
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
