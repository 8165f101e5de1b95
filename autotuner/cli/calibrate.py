"""`autotune calibrate`: fit the predictor to local measurements."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotuner.cli.load_options import DEFAULT_RUNS_FOLDER, JSON_OPTION, RUNS_FOLDER_OPTION, option

if TYPE_CHECKING:
    from autotuner.predict.local_ratios import LocalRatios

FIT_OPTIONS = "Fit"


def calibrate(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Run folders or run names.", show_default="none; shows what is calibrated"),
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
        bool, option("--forget", help="Delete the calibration and use the bundled constants.", panel=FIT_OPTIONS)
    ] = False,
    output: Annotated[Path, RUNS_FOLDER_OPTION] = DEFAULT_RUNS_FOLDER,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Correct predictions by your own runs; without a run, show what is calibrated.

    For each model, engine and GPU type, a Bayesian regression of measured over predicted times on load, lengths and tp
    corrects later predictions, of other loads and layouts too, and narrows their intervals. One load point suffices.
    """
    from autotuner.cli import display
    from autotuner.predict import local_ratios

    if forget:
        deleted_path = local_ratios.delete_ratios()
        display.note(f"Removed {deleted_path}." if deleted_path else "Nothing was calibrated.")
    elif runs:
        _fit(runs, output, gpu, simulated, as_json)
    else:
        _print_ratios(dict(local_ratios.all_ratios()), as_json)


def _fit(names: list[str], root: Path, gpu: str | None, simulated: bool, as_json: bool) -> None:
    from autotuner.cli import display
    from autotuner.errors import NoFeasibleError
    from autotuner.local_data import calibrate as fit
    from autotuner.runs.store import find_run

    calibration = fit([find_run(name, root) for name in names], simulated=simulated, gpu=gpu)
    _print_ratios(calibration.ratios, as_json)
    if calibration.skipped_points:
        display.note(
            f"{calibration.skipped_points} load points were skipped: request rates, invalid ones, unknown deployments."
        )
    if not calibration.kept_keys:
        raise NoFeasibleError(
            "Nothing was saved: without a correction held-out load points are predicted better.",
            remedy="Measure more launches or loads, and calibrate again.",
        )
    display.note(
        f"Saved in {calibration.path}; `autotune predict` now uses it, `autotune calibrate --forget` deletes it."
    )
    if calibration.source == "simulated":
        display.warning("These are SIMULATED runs: predictions now follow the simulated engine, and say so.")


def _print_ratios(ratios_by_key: dict[str, LocalRatios], as_json: bool) -> None:
    from dataclasses import asdict

    from autotuner.cli import display

    if as_json:
        display.json(
            {
                key: asdict(row) | {"ratios": [ratio._asdict() for ratio in row.ratios]}
                for key, row in ratios_by_key.items()
            }
        )
        return
    if not ratios_by_key:
        display.line("Nothing was calibrated. Correct predictions by your runs with: autotune calibrate RUN...")
        return
    numbers = ["TTFT", "TPOT", "load points", "launches", "TTFT error", "TPOT error"]
    rows = [_row(key, row) for key, row in ratios_by_key.items()]
    display.sentence(
        "Measured over predicted times (medians), and median errors before and (on held-out load points) after them"
    )
    display.table(rows, ["engine, GPU, model", *numbers, "source"], numeric=numbers)


def _row(key: str, row: LocalRatios) -> dict[str, Any]:
    from math import exp
    from statistics import median

    texts = {
        f"{name} error": f"{row.before[index]:.0%} -> {row.after[index]:.0%}" if row.before and row.after else "-"
        for index, name in enumerate(("TTFT", "TPOT"))
    }
    return {
        "engine, GPU, model": key,
        "TTFT": f"x{exp(median(ratio.ttft for ratio in row.ratios)):.2f}",
        "TPOT": f"x{exp(median(ratio.tpot for ratio in row.ratios)):.2f}",
        "load points": len(row.ratios),
        "launches": row.launches,
        **texts,
        "source": row.source if row.source == "measured" else row.source.upper(),
    }
