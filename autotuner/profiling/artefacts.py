"""The files of a profile, by the names that Dynamo's profiler and planner use."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from autotuner.errors import NoFeasibleError, RunStoreError
from autotuner.profiling.outcome import ProfileOutcome
from autotuner.profiling.plan import WorkerCurves
from autotuner.profiling.planner_profile import (
    DECODE_FOLDER,
    DECODE_JSON,
    PREFILL_FOLDER,
    PREFILL_JSON,
    PlannerProfile,
)
from autotuner.profiling.points import point_to_json
from autotuner.profiling.record import ProfileRecord
from autotuner.redaction import write_redacted, write_redacted_json

SLA_FILE, WEBUI_FILE, REPORT_FILE, LOG_FILE = "sla.json", "webui_data.json", "report.md", "profile_sla.log"
MOCKER_FILE, STATUS_FILE, FITTED_FILE = "mocker_perf_data.npz", "profiler_status.yaml", "fitted_data.npz"
MOCKER_CELLS = 100
"""Rows and columns of the grid that Dynamo's mocker reads."""
FITTED_LENGTHS, FITTED_USAGES, FITTED_CONTEXTS = 64, 21, 12
"""Points of the fitted curves in FITTED_FILE."""


def write_artefacts(outcome: ProfileOutcome) -> list[Path]:
    """Write all files of a profile; those of the planner only where it can read them. Returns their paths.

    RunStoreError if they cannot be written.
    """
    folder = outcome.record.path
    try:
        paths = _write_points(outcome.record)
        paths += _write_planner_files(outcome) if outcome.is_complete and outcome.profile is not None else []
        paths += _write_json_files(outcome)
    except OSError as error:
        raise RunStoreError(
            f"The files of the profile '{folder}' cannot be written.",
            why=f"{error.strerror}.",
            remedy="Free some space and repeat the command: no point is measured again.",
        ) from error
    return paths


def _write_points(record: ProfileRecord) -> list[Path]:
    """The points of each mapping in folders of its own, which name the folders of its launches."""
    paths = []
    for mapping in record.points:
        launches = [
            f"../launches/{launch.number:03d}-{mapping.name}" for launch in record.launches if launch.mapping == mapping
        ]
        for phase, points in (("prefill", record.prefill_points(mapping)), ("decode", record.decode_points(mapping))):
            path = record.path / f"{phase}_{mapping.name}" / "points.json"
            path.parent.mkdir(exist_ok=True)
            rows = [point_to_json(point) for point in points]
            write_redacted_json(path, {"launches": launches, "points": rows})
            paths.append(path)
    return paths


def _write_planner_files(outcome: ProfileOutcome) -> list[Path]:
    profile, curves, folder = outcome.profile, outcome.curves, outcome.record.path
    assert profile is not None
    assert curves is not None
    profile.write(folder)
    fitted_profile(curves).write(folder, FITTED_FILE)
    write_mocker_grid(curves, folder / MOCKER_FILE)
    _write_json(folder / PREFILL_JSON, profile.prefill_json())
    _write_json(folder / DECODE_JSON, profile.decode_json())
    names = (f"{PREFILL_FOLDER}/raw_data.npz", f"{DECODE_FOLDER}/raw_data.npz", MOCKER_FILE, PREFILL_JSON, DECODE_JSON)
    return [folder / name for name in names]


def _write_json_files(outcome: ProfileOutcome) -> list[Path]:
    folder = outcome.record.path
    try:
        data = outcome.to_json()
    except NoFeasibleError as error:  # the budget holds no worker: the points are written all the same
        data = {"explanation": str(error)}
    _write_json(folder / SLA_FILE, data)
    _write_json(folder / WEBUI_FILE, webui_data(outcome))
    status = "success" if outcome.is_complete and not outcome.selection.missed_targets else "failed"
    message = json.dumps(data.get("explanation") or "; ".join(outcome.profile_problems) or "the profile is complete")
    write_redacted(folder / STATUS_FILE, f"status: {status}\nmessage: {message}\n")
    return [folder / name for name in (SLA_FILE, WEBUI_FILE, STATUS_FILE)]


def _write_json(path: Path, data: Any) -> None:
    write_redacted_json(path, _without_nan(data))


def _without_nan(data: Any) -> Any:
    """The data with None for numbers that JSON has not."""
    if isinstance(data, dict):
        return {name: _without_nan(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_without_nan(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def fitted_profile(curves: WorkerCurves) -> PlannerProfile:
    """The fitted curves on a regular grid, in the planner's form."""
    profile = curves.profile
    lengths = np.unique(np.rint(np.geomspace(profile.prefill_isl.min(), profile.prefill_isl.max(), FITTED_LENGTHS)))
    ttfts = curves.ttft_curve(lengths)
    contexts = np.geomspace(profile.y_context_length.min(), profile.y_context_length.max(), FITTED_CONTEXTS)
    usages = np.linspace(0, 1, FITTED_USAGES)[1:]
    usage_grid, context_grid = (grid.ravel() for grid in np.meshgrid(usages, contexts))
    requests = usage_grid * profile.max_kv_tokens / context_grid
    # a worker runs no more requests than it was measured with
    within = (requests >= 1) & (requests <= profile.requests.max())
    itls = curves.itl_surface(requests[within], context_grid[within])
    return PlannerProfile(
        lengths,
        1000 * ttfts,
        lengths / ttfts * curves.prefill_streams / curves.prefill_gpus,
        usage_grid[within],
        context_grid[within],
        1000 * itls,
        requests[within] / itls / curves.decode_gpus,
        profile.max_kv_tokens,
    )


def write_mocker_grid(curves: WorkerCurves, path: Path) -> None:
    """Write the .npz that Dynamo's mocker reads: TTFT over length, and ITL over [active KV tokens, context], in ms."""
    profile = curves.profile
    lengths = np.linspace(profile.prefill_isl.min(), profile.prefill_isl.max(), MOCKER_CELLS)
    active = np.linspace(0, profile.max_kv_tokens, MOCKER_CELLS)
    contexts = np.linspace(profile.y_context_length.min(), profile.y_context_length.max(), MOCKER_CELLS)
    active_grid, context_grid = np.meshgrid(active, contexts, indexing="ij")
    requests = np.clip(active_grid / context_grid, 1, float(profile.requests.max()))
    itls = curves.itl_surface(requests.ravel(), context_grid.ravel()).reshape(active_grid.shape)
    np.savez(
        path,
        prefill_isl=lengths,
        prefill_ttft_ms=1000 * curves.ttft_curve(lengths),
        decode_active_kv_tokens=active,
        decode_context_length=contexts,
        decode_itl=1000 * itls,
    )


def webui_data(outcome: ProfileOutcome) -> dict[str, Any]:
    """The charts of the interactive pick: every worker at its points, with what it costs; milliseconds."""
    request, selection = outcome.record.request, outcome.selection
    return {
        "settings": {"model": request.model, "runtime": request.runtime, "gpu": request.gpu, "isl": request.isl}
        | {"osl": request.osl, "sources": outcome.sources},
        "prefill": {
            "ttft_target_ms": 1000 * request.ttft,
            "points": [
                {
                    "mapping": worker.mapping.name,
                    "gpus": worker.mapping.gpus,
                    "ttft_ms": 1000 * worker.point.ttft,
                    "tokens_per_second_per_gpu": worker.point.throughput_per_gpu,
                    "meets_target": worker.meets_target,
                }
                for worker in selection.prefill
            ],
        },
        "decode": {
            "itl_target_ms": 1000 * request.itl,
            "points": [
                {
                    "mapping": worker.mapping.name,
                    "gpus": worker.mapping.gpus,
                    "requests": worker.point.concurrency,
                    "itl_ms": 1000 * worker.point.itl,
                    "tokens_per_second_per_gpu": worker.point.throughput_per_gpu,
                    "meets_target": worker.meets_target,
                }
                for worker in selection.decode
            ],
        },
        "cost": cost_rows(outcome),
    }


def cost_rows(outcome: ProfileOutcome) -> list[dict[str, Any]]:
    """GPU-hours of 1,000 requests for each pair of a prefill worker and a decode worker at each of its points."""
    request, selection = outcome.record.request, outcome.selection
    return [
        {
            "prefill": prefill.mapping.name,
            "decode": decode.mapping.name,
            "requests": decode.point.concurrency,
            "ttft_ms": 1000 * prefill.point.ttft,
            "itl_ms": 1000 * decode.point.itl,
            "gpu_hours_per_1000_requests": (
                request.isl / prefill.point.throughput_per_gpu + request.osl / decode.point.throughput_per_gpu
            )
            / 3.6,
            "meets_targets": prefill.meets_target and decode.meets_target,
        }
        for prefill in selection.prefill
        for decode in selection.decode
    ]


def remove_planner_files(folder: Path) -> None:
    """Remove the planner's files of an earlier pick."""
    for name in (PREFILL_FOLDER, DECODE_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (PREFILL_JSON, DECODE_JSON, MOCKER_FILE):
        (folder / name).unlink(missing_ok=True)
