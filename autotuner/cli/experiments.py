"""Several experiments of one command, in turn or side by side, and the comparison of their winners."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from autotuner.cli.error_boundary import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from autotuner.cli.gate import Gate
    from autotuner.config import Composition
    from autotuner.errors import AutotuneError
    from autotuner.run_report import Result
    from autotuner.session import Session

    Warn = Callable[[str, AutotuneError], None]

COMPARISON_FILE = "experiments.md"
"""The comparison's name in the folder of runs."""


def plan_experiments(compositions: Mapping[str, Composition], parallel: int, as_json: bool) -> None:
    """Show for each experiment what it would launch, and the time of all."""
    from autotuner.cli import display
    from autotuner.run_setup import RunSetup

    rows = []
    for name, composition in compositions.items():
        setup = RunSetup.from_experiment(composition.experiment)
        plan = setup.plan
        rows.append(
            {
                "experiment": name,
                "model": composition.experiment.model.id_or_path,
                "engine": f"{composition.experiment.base_runtime} ({setup.source})",
                "GPU": composition.experiment.hardware.gpu_type or "",
                "combinations": plan.space.combination_count,
                "launches": plan.launch_count,
                "minutes": round(plan.usual_cost.seconds / 60, 1),
                "virtual_time": plan.in_virtual_time,
            }
        )
    if as_json:
        display.json({"experiments": rows})
        return
    shown = [{**row, "launches": f"up to {row['launches']}"} for row in rows]
    columns = [name for name in rows[0] if name != "virtual_time"]
    numeric = ["combinations", "launches", "minutes"]
    order = "one after another" if parallel == 1 else f"up to {parallel} side by side"
    display.table(shown, columns, title=f"{len(rows)} experiments, {order}", numeric=numeric)
    minutes = sum(float(str(row["minutes"])) for row in rows)
    is_virtual = all(row["virtual_time"] for row in rows)
    note = " of virtual time, which is computed in a fraction of it" if is_virtual else ""
    total = "Together" if parallel == 1 else "One after another they would take"
    display.sentence(f"{total} about {minutes:.1f} minutes{note}. For the plan of one, give a file with it alone.")


def run_experiments(
    compositions: Mapping[str, Composition], output: Path, parallel: int, as_json: bool, gate: Gate
) -> None:
    """Run every experiment into a folder of its own, then compare the winners; raise where none was measured.

    `parallel` of them run at a time. What keeps one from running is a warning, and the others go on.
    """
    from autotuner.cli import display
    from autotuner.compare.experiments import experiments_markdown, experiments_record, experiments_table
    from autotuner.redaction import write_redacted
    from autotuner.runs.store import explain_write_errors

    errors: list[AutotuneError] = []

    def warn(name: str, error: AutotuneError) -> None:
        errors.append(error)
        display.warning(f"experiment {name}: {error}")

    run = _run_in_turn if parallel == 1 else partial(_run_side_by_side, parallel)
    results = run(compositions, output, warn)
    if not results:
        raise errors[0]
    views = {name: result.view for name, result in results.items()}
    page = output / COMPARISON_FILE
    with explain_write_errors(page):
        write_redacted(page, experiments_markdown(views))
    if as_json:
        display.json(experiments_record(views, {name: str(result.path) for name, result in results.items()}))
    else:
        display.report_table(experiments_table(views), "Winners of the experiments")
        for name, result in results.items():
            display.sentence(f"{name}  {result.path}")
        display.sentence(f"comparison  {page}")
    if errors:
        raise errors[0]
    for view in views.values():
        gate.check_run(view)


def _run_in_turn(compositions: Mapping[str, Composition], output: Path, warn: Warn) -> dict[str, Result]:
    from autotuner.cli import display
    from autotuner.errors import AutotuneError
    from autotuner.session import Session

    results: dict[str, Result] = {}
    names = list(compositions)
    for number, (name, composition) in enumerate(compositions.items(), start=1):
        display.note(f"experiment {number} of {len(compositions)}: {name}")
        try:
            results[name] = _run(Session.start(composition, output))
        except typer.Exit:
            if names[number:]:
                display.note(f"Not started: {', '.join(names[number:])}. Run them with a file of these alone.")
            raise
        except AutotuneError as error:
            warn(name, error)
    return results


def _run_side_by_side(
    limit: int, compositions: Mapping[str, Composition], output: Path, warn: Warn
) -> dict[str, Result]:
    from autotuner.cli import display
    from autotuner.cli.side_by_side import check_side_by_side, run_side_by_side
    from autotuner.cli.signals import terminated_as_interrupted
    from autotuner.errors import AutotuneError
    from autotuner.escaping import for_shell
    from autotuner.report.run_view import RunView
    from autotuner.run_report import Result
    from autotuner.run_setup import RunSetup
    from autotuner.session import Session

    sessions: dict[str, Session] = {}
    for name, composition in compositions.items():
        try:
            check_side_by_side(name, RunSetup.from_experiment(composition.experiment))
            sessions[name] = Session.start(composition, output)
        except AutotuneError as error:
            warn(name, error)

    def note_start(name: str) -> None:
        display.note(f"experiment {name} started, run folder {sessions[name].store.path}")

    def note_end(name: str) -> None:
        display.note(f"experiment {name} ended")

    try:
        with terminated_as_interrupted():
            errors = run_side_by_side(sessions, limit, note_start, note_end)
    except KeyboardInterrupt as interrupt:
        display.note("Interrupted; the finished trials are kept. Resume each experiment that had not ended with:")
        for session in sessions.values():
            display.note(f"  autotune run --resume {for_shell(str(session.store.path))}")
        raise typer.Exit(EXIT_INTERRUPTED) from interrupt
    for name, failure in errors.items():
        warn(name, failure)
    stores = {name: session.store for name, session in sessions.items() if name not in errors}
    return {name: Result(RunView.from_store(store), store.path, command=None) for name, store in stores.items()}


def _run(session: Session) -> Result:
    from autotuner.cli import display
    from autotuner.cli.live_view import live_view_for
    from autotuner.cli.signals import terminated_as_interrupted

    store = session.store
    with terminated_as_interrupted(), store.lock():
        display.note(f"run folder {store.path}")
        try:
            with live_view_for(session.setup.plan, store.summaries(), store.path) as view:
                return session.tune(view)
        except KeyboardInterrupt as interrupt:
            display.note(
                f"Interrupted; {len(store.summaries())} finished trials of this experiment are kept. Resume with:"
            )
            display.note(f"  autotune run --resume {store.path}")
            raise typer.Exit(EXIT_INTERRUPTED) from interrupt
