"""`autotune calibrate`: fit the predictor to local measurements."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotuner.cli.load_options import DEFAULT_RUNS_FOLDER, JSON_OPTION, RUNS_FOLDER_OPTION, option

if TYPE_CHECKING:
    from autotuner.predict.local_factors import Factors

FIT_OPTIONS = "Fit"


def calibrate(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Run folders or run names.", show_default="none; shows the fitted factors"),
    ] = None,
    gpu: Annotated[
        str | None,
        option(
            "--gpu",
            metavar="TYPE",
            help="GPU type of runs that do not record one.",
            panel=FIT_OPTIONS,
            default="none; such runs are skipped",
        ),
    ] = None,
    simulated: Annotated[
        bool,
        option("--simulated", help="Accept simulated runs; predictions are then marked as such.", panel=FIT_OPTIONS),
    ] = False,
    forget: Annotated[
        bool, option("--forget", help="Delete the fitted factors and use the bundled constants.", panel=FIT_OPTIONS)
    ] = False,
    output: Annotated[Path, RUNS_FOLDER_OPTION] = DEFAULT_RUNS_FOLDER,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Fit the predictor to your own runs; without a run, show the fitted factors.

    For each engine and GPU type, three factors on prefill, decode and overhead time are fitted to the measured load
    points and shrunk towards 1. Later predictions use these factors and say so.
    """
    from autotuner.cli import display
    from autotuner.predict import local_factors

    if forget:
        deleted_path = local_factors.delete_factors()
        display.note(f"Removed {deleted_path}." if deleted_path else "Nothing was calibrated.")
    elif runs:
        _fit(runs, output, gpu, simulated, as_json)
    else:
        _print_factors(dict(local_factors.all_factors()), as_json)


def _fit(names: list[str], root: Path, gpu: str | None, simulated: bool, as_json: bool) -> None:
    from autotuner.cli import display
    from autotuner.errors import NoFeasibleError
    from autotuner.local_data import calibrate as fit
    from autotuner.runs.store import find_run

    calibration = fit([find_run(name, root) for name in names], simulated=simulated, gpu=gpu)
    _print_factors(calibration.factors, as_json)
    if calibration.skipped_points:
        display.note(
            f"{calibration.skipped_points} load points were skipped: request rates, invalid ones, unknown deployments."
        )
    if not calibration.kept_keys:
        raise NoFeasibleError(
            "Nothing was saved: the bundled constants predict held-out load points better.",
            remedy="Measure more launches or loads, and calibrate again.",
        )
    display.note(
        f"Saved in {calibration.path}; `autotune predict` now uses it, `autotune calibrate --forget` deletes it."
    )
    if calibration.source == "simulated":
        display.warning("These are SIMULATED runs: predictions now follow the simulated engine, and say so.")


def _print_factors(factors_by_engine: dict[str, Factors], as_json: bool) -> None:
    from dataclasses import asdict

    from autotuner.cli import display

    if as_json:
        display.json({key: asdict(factors) for key, factors in factors_by_engine.items()})
        return
    if not factors_by_engine:
        display.line("Nothing was calibrated. Fit predictions to your runs with: autotune calibrate RUN...")
        return
    counts = ["prefill", "decode", "overhead", "load points", "launches"]
    errors = ["TTFT error", "TPOT error"]
    rows = [_row(key, factors) for key, factors in factors_by_engine.items()]
    display.line("Factors on predicted times, and median errors before and (on held-out load points) after the fit")
    display.table(rows, ["engine and GPU", *counts, *errors, "source"], numeric=[*counts, *errors])


def _row(key: str, factors: Factors) -> dict[str, Any]:
    return {
        "engine and GPU": key,
        "prefill": f"{factors.prefill:.3f}",
        "decode": f"{factors.decode:.3f}",
        "overhead": f"{factors.overhead:.3f}",
        "load points": factors.points,
        "launches": factors.launches,
        "TTFT error": f"{factors.before[0]:.0%} -> {factors.after[0]:.0%}",
        "TPOT error": f"{factors.before[1]:.0%} -> {factors.after[1]:.0%}",
        "source": factors.source if factors.source == "measured" else factors.source.upper(),
    }
