"""What the closed form expects of each candidate of a plan, for `--dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autotuner.cli.predict_point import duration
from autotuner.report.figures import number
from autotuner.report.table import OUTPUT_PER_GPU

if TYPE_CHECKING:
    from autotuner.core import Candidate, LoadPoint
    from autotuner.foresight import Foresight

COLUMNS = ("TTFT", "TPOT", OUTPUT_PER_GPU)


def foreseen(foresight: Foresight, candidates: Sequence[Candidate], points: Sequence[LoadPoint]) -> list[Any]:
    """Every load point of every candidate for JSON: seconds and output tokens/s; None where nothing is known."""
    return [[_plain(foresight, candidate, point) for point in points] for candidate in candidates]


def _plain(foresight: Foresight, candidate: Candidate, point: LoadPoint) -> dict[str, Any] | None:
    found = foresight.predict(candidate, point)
    if found is None:
        return None
    return {
        "load_point": str(point),
        "ttft": found.ttft,
        "ttft_interval": list(found.ttft_interval),
        "tpot": found.tpot,
        "tpot_interval": list(found.tpot_interval),
        "output_throughput_per_gpu": found.throughput / found.gpus,
        "source": "predicted",
    }


def columns(foresight: Foresight, candidate: Candidate, point: LoadPoint) -> dict[str, str]:
    """The cells of one candidate at one load point; empty where nothing is known."""
    found = foresight.predict(candidate, point)
    if found is None:
        return {}
    cells = (duration(found.ttft), duration(found.tpot), number(found.throughput / found.gpus))
    return dict(zip(COLUMNS, cells, strict=True))
