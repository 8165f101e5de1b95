"""`autotune run`: the main job."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from autotuner.cli.asked import Asked, asks
from autotuner.cli.gate import FAIL_ON, Gate
from autotuner.cli.load_options import AS_JSON, OUTPUT, RUNS, RUNS_FOLDER, option
from autotuner.cli.signals import terminated_as_interrupted

if TYPE_CHECKING:
    from autotuner.config import Composition
    from autotuner.search.plan import Plan
    from autotuner.store import RunStore
    from autotuner.wire import Wiring


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
    from autotuner.wire import create, wire

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
    from autotuner.store import RunStore, find_run
    from autotuner.wire import wire

    store = RunStore.open(find_run(name, output))
    wiring = wire(store.experiment)
    display.relay_log()
    wiring.preflight(output)
    _tune(store, wiring, as_json, gate)


def _tune(store: RunStore, wiring: Wiring, as_json: bool, gate: Gate) -> None:
    from autotuner.cli import display
    from autotuner.cli.live import view
    from autotuner.cli.results import leader, show
    from autotuner.wire import go_on

    with terminated_as_interrupted(), store.locked():
        done = store.trials()
        plan = wiring.plan()
        display.note(f"run folder {store.path}: {len(plan.candidates)} launches, {len(done)} of them finished")
        try:
            with view(plan, done, lambda trials: leader(trials, store.experiment)) as watch:
                result = go_on(store, wiring, watch)
        except KeyboardInterrupt:
            display.note(f"Interrupted; {len(store.trials())} finished trials are kept. Go on with:")
            display.note(f"  autotune run --resume {store.path}")
            raise
    if done and len(result.trials) == len(done):
        display.note(f"This run is complete: nothing was left to launch. Its {len(done)} trials were ranked again.")
    show(result, store.experiment, as_json)
    gate.judge(result.ranking)


def _show_plan(composition: Composition, wiring: Wiring, as_json: bool) -> None:
    from autotuner.cli import display, foreseen
    from autotuner.cli.live import clock

    plan = wiring.plan()
    points = plan.workload.load_points
    if as_json:
        display.json(
            {
                "layers": composition.layers,
                "source": wiring.source,
                "combinations": plan.space.total,
                "launches": len(plan.candidates),
                "candidates": [dict(candidate.parameters) for candidate in plan.candidates],
                "predicted": foreseen.foreseen(wiring.foresight, plan.candidates, points),
                "refused": [{"candidate": str(c), "reason": reason} for c, reason in plan.space.refused],
                "load_points": [str(point) for point in plan.workload.load_points],
                "estimated_seconds": round(plan.seconds),
                "estimate_is_at_most": plan.at_most,
                "estimated_gpu_hours": round(plan.gpu_hours, 3),
            }
        )
        return
    experiment = wiring.experiment
    display.line("layers       " + " > ".join(composition.layers))
    display.line(f"model        {experiment.model.id_or_path}")
    why = "" if wiring.simulated else composition.reasons.get("deployment.mode", "")
    display.line(f"engine       {experiment.base_runtime} ({wiring.source}), {wiring.where}{f': {why}' if why else ''}")
    display.line(f"objective    {experiment.optimization.objective}, by {experiment.optimization.strategy}")
    display.line("load points  " + ", ".join(str(point) for point in plan.workload.load_points))
    seen = len(plan.space.candidates) + len(plan.space.refused)
    sample = f"{seen} of them drawn, " if seen < plan.space.total else ""
    display.line(f"space        {plan.space.total} combinations, {sample}{len(plan.space.refused)} refused")
    display.line(
        f"launches     {len(plan.candidates)}, each {clock(plan.start_seconds)} to start and "
        f"{clock(plan.load_seconds)} of load"
    )
    most = "at most " if plan.at_most else ""
    display.line(f"estimate     {most}{clock(plan.seconds)}, {plan.gpu_hours:.2f} GPU-hours")
    names = list(experiment.parameters)
    rows: list[dict[str, Any]] = [
        {"trial": number, **candidate.parameters, **foreseen.columns(wiring.foresight, candidate, points[-1])}
        for number, candidate in enumerate(plan.candidates, start=1)
    ]
    known = foreseen.COLUMNS if any(foreseen.COLUMNS[0] in row for row in rows) else ()
    display.line(f"\ncandidates{f'; predicted, not measured, at {points[-1]}' if known else ''}")
    display.table(rows, ["trial", *names, *known], right=known)
    if plan.space.refused:
        display.table(_refused_rows(plan), ["", *names, "refused because"], title="refused")


def _refused_rows(plan: Plan) -> list[dict[str, Any]]:
    """The first combinations that each reason holds for, and how many more there are."""
    from autotuner.report.refused import NAMED, by_reason

    rows: list[dict[str, Any]] = []
    for reason, candidates in by_reason(plan.space.refused).items():
        rows += [{**candidate.parameters, "refused because": reason} for candidate in candidates[:NAMED]]
        if len(candidates) > NAMED:
            rows.append({"": f"and {len(candidates) - NAMED} more", "refused because": reason})
    return rows
