"""Predictions for layouts that were not launched, as a table."""

from __future__ import annotations

from collections.abc import Callable

from autotuner.report.formatting import format_number
from autotuner.report.run_view import RunView
from autotuner.report.table import Column, Row, Table

FORECAST_TITLE = "Predicted for layouts that were not launched, before and after these launches (80% intervals)"


def forecast_table(view: RunView) -> Table:
    """TTFT and TPOT of each such layout, in ms; without rows where none was predicted."""
    rows: tuple[Row, ...] = tuple(
        {
            "layout": " ".join(f"{name}={size}" for name, size in forecast.sizes.items() if size != 1) or "one GPU",
            "load": forecast.load_point,
            "before": forecast.before,
            "after": forecast.after,
        }
        for forecast in view.forecasts
    )
    return Table(
        (
            Column("layout", lambda row: str(row["layout"]), numeric=False),
            Column("load", lambda row: str(row["load"]), numeric=False, drop_priority=1),
            *(
                Column(f"{metric.upper()} ms {moment}", _interval_cell(metric, moment))
                for metric in ("ttft", "tpot")
                for moment in ("before", "after")
            ),
        ),
        rows,
    )


def _interval_cell(metric: str, moment: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        low, high = row[moment][metric]
        return f"{format_number(1e3 * low)} to {format_number(1e3 * high)}"

    return cell
