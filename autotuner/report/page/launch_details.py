"""What the page tells of a single launch: command, log, checks, failure, timings and machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotuner.core import LoadPointResult, Trial
from autotuner.errors import mask_credentials
from autotuner.report.page.request_samples import latencies, records_file, timeline
from autotuner.report.run_view import RunView
from autotuner.scoring.objective import output_throughput_per_gpu

MAX_LINE_CHARACTERS = 400
MAX_LOG_BYTES = 1 << 17
MAX_COMMAND_CHARACTERS = 8000
_TERMINAL_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-Z\\-_])")


@dataclass(frozen=True)
class Launches:
    """Trials with the details of their load points by trial number, and the (name, limit) of checks these refer to."""

    trials: Sequence[Trial]
    points: dict[int, list[dict[str, Any]]]
    limits: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> Launches:
        limits: dict[tuple[str, str], int] = {}
        points = {trial.number: [_point(result, trial, limits) for result in trial.results] for trial in trials}
        return cls(trials, points, tuple(limits))


def launch_details(
    launches: Launches, view: RunView, folder: Path, log_lines: int, other_log_lines: int, *, timelines: bool
) -> dict[str, Any]:
    """Trial number -> its details, and `limits`, the distinct (name, limit) of validity checks that they refer to."""
    ranking = view.ranking
    first = {ranking.winner.trial_number if ranking.winner else None, ranking.baseline_trial_number}
    details: dict[str, Any] = {
        str(trial.number): launch_detail(
            trial,
            launches.points[trial.number],
            folder,
            log_lines=log_lines if trial.failed or trial.number in first else other_log_lines,
            with_timelines=timelines and (trial.failed or trial.number in first),
        )
        for trial in launches.trials
    }
    return {"limits": [list(each) for each in launches.limits], "trials": details}


def launch_detail(
    trial: Trial, points: list[dict[str, Any]], folder: Path, *, log_lines: int, with_timelines: bool
) -> dict[str, Any]:
    """One launch, with the details of its load points."""
    measurement, trial_folder = trial.measurement, folder / "trials" / f"{trial.number:03d}"
    failure = measurement.failure
    detail: dict[str, Any] = {
        "purpose": trial.purpose,
        "source": measurement.source,
        "seconds": {name: round(value, 1) for name, value in measurement.timings.items()},
        "server": {name: str(value) for name, value in measurement.server.items()},
        "folder": f"trials/{trial.number:03d}/",
        "beside": list(trial.parallel_trials),
        "points": points,
        "command": _command(trial_folder),
        "log": log_tail(trial_folder / "server.log", log_lines),
    }
    if failure is not None:
        detail["failure"] = [failure.kind.value, mask_credentials(failure.message), failure.remedy]
    if with_timelines:
        detail["timelines"] = _timelines(trial, folder)
    return detail


def log_tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log without terminal sequences, each shortened, with credentials masked; [] without a log."""
    if not lines:
        return []
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - MAX_LOG_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    cleaned = (_TERMINAL_SEQUENCE.sub("", line.rpartition("\r")[2] or line) for line in text.rstrip().split("\n"))
    return [mask_credentials(line.rstrip("\r")[:MAX_LINE_CHARACTERS]) for line in list(cleaned)[-lines:]]


def _point(result: LoadPointResult, trial: Trial, limits: dict[tuple[str, str], int]) -> dict[str, Any]:
    """A load point of one launch, whose checks are added to `limits`.

    Load, verdict, figures, checks as (number of the limit, value, passed), errors.
    """
    metrics, share = result.metrics, result.metrics.attainment
    point: dict[str, Any] = {
        "at": str(result.load_point),
        "verdict": result.verdict.value,
        "figures": [
            _rounded(output_throughput_per_gpu(metrics, trial.candidate.gpus)),
            _rounded(metrics.ttft.p99 if metrics.ttft else None),
            _rounded(metrics.tpot.mean if metrics.tpot else None),
            _rounded(share.value if share else None),
            metrics.requests,
            _rounded(result.gpu_use.mean_watts if result.gpu_use else None),
            _rounded(result.gpu_use.utilisation if result.gpu_use else None),
        ],
        "checks": [
            [limits.setdefault((check.name, check.limit), len(limits)), _rounded(check.value), int(check.ok)]
            for check in result.validity
        ],
    }
    if metrics.errors:
        point["errors"] = {
            name: [count, mask_credentials(result.error_messages.get(name, ""))[:MAX_LINE_CHARACTERS]]
            for name, count in metrics.errors.items()
        }
    return point


def _command(trial_folder: Path) -> str:
    """The script that started it, as it was kept; empty where none was."""
    try:
        return (trial_folder / "command.sh").read_text(encoding="utf-8", errors="replace")[:MAX_COMMAND_CHARACTERS]
    except OSError:
        return ""


def _timelines(trial: Trial, folder: Path) -> dict[str, list[list[float]]]:
    """Load point -> its first requests."""
    return {
        str(result.load_point): timeline(samples)
        for position, result in enumerate(trial.results, start=1)
        if (samples := latencies(records_file(folder, trial, position))) is not None
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
