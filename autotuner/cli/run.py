"""`autotune run`: the main job."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotuner.cli.config_options import Asked, asks
from autotuner.cli.error_boundary import INTERRUPTED
from autotuner.cli.gate import FAIL_ON, Gate
from autotuner.cli.load_options import AS_JSON, OUTPUT, RUNS, RUNS_FOLDER, option
from autotuner.cli.signals import terminated_as_interrupted

if TYPE_CHECKING:
    from autotuner.config import Composition
    from autotuner.search.plan import Plan
    from autotuner.session import Wiring
    from autotuner.store import RunStore


@asks
def run(
    asked: Asked,
    output: Annotated[Path, RUNS_FOLDER] = RUNS,
    dry_run: Annotated[bool, option("--dry-run", help="Show the plan and stop.", panel=OUTPUT)] = False,
    resume: Annotated[
        str | None,
        option(
            "--resume",
            metavar="[RUN]",
            help="Go on with this run, a folder or a name, or with the newest; no finished trial is repeated.",
            panel=OUTPUT,
            default="a new run",
        ),
    ] = None,
    fail_on: Annotated[str, FAIL_ON] = "infeasible",
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Compose a configuration, launch candidates, measure, rank, and print the winner's command."""
    from autotuner.cli import display
    from autotuner.session import create, wire

    gate = Gate.read(fail_on)
    if resume is not None:
        _refuse_changes(asked, dry_run)
        _resume(resume or None, output, as_json, gate)
        return
    composition = asked.compose()
    for warning in composition.warnings:
        display.warning(warning)
    wiring = wire(composition.experiment)
    if dry_run:
        _show_plan(composition, wiring, as_json)
        return
    for note in composition.notes:
        display.note(note)
    display.relay_log()
    wiring.preflight(output)
    _tune(create(composition, output), wiring, as_json, gate)


def _refuse_changes(asked: Asked, dry_run: bool) -> None:
    """A run that is resumed keeps its configuration, and has no plan to be shown."""
    from autotuner.errors import UsageError

    defaults = Asked()
    changed = [field.name for field in fields(Asked) if getattr(asked, field.name) != getattr(defaults, field.name)]
    changed += ["dry_run"] if dry_run else []
    if changed:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
        raise UsageError(
            "--resume goes on with the configuration the run was started with.",
            why=f"{options} would change it." if not dry_run else f"It cannot be combined with {options}.",
            remedy="Leave the other options out, or start a new run.",
        )


def _resume(name: str | None, output: Path, as_json: bool, gate: Gate) -> None:
    """Go on with the run called `name`, or with the newest."""
    from autotuner.cli import display
    from autotuner.session import wire
    from autotuner.store import RunStore, find_run

    store = RunStore.open(find_run(name, output))
    wiring = wire(store.experiment)
    display.relay_log()
    wiring.preflight(output)
    _tune(store, wiring, as_json, gate)


def _tune(store: RunStore, wiring: Wiring, as_json: bool, gate: Gate) -> None:
    from autotuner.cli import display
    from autotuner.cli.results import show
    from autotuner.cli.run_view import view
    from autotuner.errors import counted
    from autotuner.session import go_on

    with terminated_as_interrupted(), store.locked():
        done = store.trials()
        plan = wiring.plan()
        most = "at most " if plan.may_end_early else ""
        launches = counted(plan.total, "launch", "launches")
        display.note(f"run folder {store.path}: {most}{launches}, {len(done)} of them finished")
        try:
            with view(plan, done) as watch:
                result = go_on(store, wiring, watch)
        except KeyboardInterrupt as interrupt:
            display.note(f"Interrupted; {_kept(len(store.trials()))}. Go on with:")
            display.note(f"  autotune run --resume {store.path}")
            raise typer.Exit(INTERRUPTED) from interrupt
    if done and len(result.trials) == len(done):
        display.note(f"This run is complete: nothing was left to launch. {_again(len(done))}")
    show(result, store.experiment, as_json)
    gate.judge(result.ranking)


def _kept(trials: int) -> str:
    return "1 finished trial is kept" if trials == 1 else f"{trials} finished trials are kept"


def _again(trials: int) -> str:
    return "Its trial was ranked again." if trials == 1 else f"Its {trials} trials were ranked again."


def _show_plan(composition: Composition, wiring: Wiring, as_json: bool) -> None:
    from autotuner.cli import display, plan_forecast, plan_text
    from autotuner.errors import counted
    from autotuner.report.objective_text import meaning

    plan = wiring.plan()
    points = plan.workload.load_points
    if as_json:
        display.json(
            {
                "layers": composition.layers,
                "source": wiring.source,
                "combinations": plan.space.total,
                "launches": plan.total,
                "confirmations": plan.confirmations,
                "may_end_early": plan.may_end_early,
                "candidates": [dict(candidate.parameters) for candidate in plan.candidates],
                "predicted": plan_forecast.foreseen(wiring.foresight, plan.candidates, points),
                "refused": [{"candidate": str(c), "reason": reason} for c, reason in plan.space.refused],
                "load_points": [str(point) for point in points],
                "estimated_seconds": round(plan.usual.seconds),
                "estimated_seconds_at_most": round(plan.most.seconds),
                "estimated_gpu_hours": round(plan.usual.gpu_hours, 3),
                "estimated_gpu_hours_at_most": round(plan.most.gpu_hours, 3),
            }
        )
        return
    experiment = wiring.experiment
    why = "" if wiring.simulated else composition.reasons.get("deployment.mode", "")
    seen = len(plan.space.candidates) + len(plan.space.refused)
    sample = f"{seen:,} of them drawn, " if seen < plan.space.total else ""
    for label, text in (
        ("layers", " > ".join(composition.layers)),
        ("model", experiment.model.id_or_path),
        ("engine", f"{experiment.base_runtime} ({wiring.source}), {wiring.where}{f': {why}' if why else ''}"),
        ("objective", f"{experiment.optimization.objective}, by {experiment.optimization.strategy}"),
        ("", meaning(experiment)),
        ("load points", ", ".join(map(str, points))),
        ("space", f"{counted(plan.space.total, 'combination')}, {sample}{len(plan.space.refused)} refused"),
        *plan_text.lines(plan),
    ):
        display.sentence(f"{label:<13}{text}", indent=" " * 13)
    plan_text.show_candidates(plan, wiring.foresight)
    if plan.space.refused:
        names = list(experiment.parameters)
        alike = [name for name in names if len(experiment.parameters[name]) == 1]
        priorities = dict.fromkeys(alike, 2)
        display.line()
        display.table(_refused_rows(plan), ["", *names, "refused because"], title="refused", priorities=priorities)


def _refused_rows(plan: Plan) -> list[dict[str, Any]]:
    """The first combinations that each reason holds for, and how many more there are."""
    from autotuner.report.refused import NAMED, by_reason

    rows: list[dict[str, Any]] = []
    for reason, candidates in by_reason(plan.space.refused).items():
        rows += [{**candidate.parameters, "refused because": reason} for candidate in candidates[:NAMED]]
        if len(candidates) > NAMED:
            rows.append({"": f"and {len(candidates) - NAMED} more", "refused because": reason})
    return rows
