"""`autotune run`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotuner.cli.asked import Asked, asks
from autotuner.cli.signals import terminated_as_interrupted

if TYPE_CHECKING:
    from autotuner.config import Composition
    from autotuner.search.plan import Plan
    from autotuner.store import RunStore
    from autotuner.wire import Wiring

RUNS = Path("runs")


@asks
def run(
    asked: Asked,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder that holds the runs.")] = RUNS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="RUN", help="Go on with this run; repeats no finished trial.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")] = False,
) -> None:
    """Compose a configuration, launch candidates, measure, rank, and print the winner's command."""
    from autotuner.cli import display
    from autotuner.wire import create, wire

    if resume is not None:
        _resume(resume, output, asked, as_json)
        return
    composition = asked.compose()
    for warning in composition.warnings:
        display.warning(warning)
    wiring = wire(composition.experiment)
    if dry_run:
        _show_plan(composition, wiring, as_json)
        return
    display.relay_log()
    wiring.preflight(output)
    _tune(create(composition, output), wiring, as_json)


def _resume(name: str, output: Path, asked: Asked, as_json: bool) -> None:
    from autotuner.cli import display
    from autotuner.errors import UsageError
    from autotuner.store import RunStore, find_run
    from autotuner.wire import wire

    if asked != Asked():
        raise UsageError(
            "--resume goes on with the configuration the run was started with.",
            remedy="Leave the other options out, or start a new run.",
        )
    store = RunStore.open(find_run(name, output))
    wiring = wire(store.experiment)
    display.relay_log()
    wiring.preflight(output)
    _tune(store, wiring, as_json)


def _tune(store: RunStore, wiring: Wiring, as_json: bool) -> None:
    from autotuner.cli import display
    from autotuner.cli.live import view
    from autotuner.cli.results import show
    from autotuner.wire import go_on

    with terminated_as_interrupted(), store.locked():
        done = store.trials()
        plan = wiring.plan()
        most = "at most " if plan.may_end_early else ""
        display.note(f"run folder {store.path}: {most}{plan.total} launches, {len(done)} of them finished")
        try:
            with view(plan, done) as watch:
                result = go_on(store, wiring, watch)
        except KeyboardInterrupt:
            display.note(f"Interrupted; {len(store.trials())} finished trials are kept. Go on with:")
            display.note(f"  autotune run --resume {store.path}")
            raise
    show(result, store.experiment, as_json)


def _show_plan(composition: Composition, wiring: Wiring, as_json: bool) -> None:
    from autotuner.cli import display, foreseen, planned
    from autotuner.report.goal import meaning

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
                "predicted": foreseen.foreseen(wiring.foresight, plan.candidates, points),
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
    seen = len(plan.space.candidates) + len(plan.space.refused)
    sample = f"{seen} of them drawn, " if seen < plan.space.total else ""
    for label, text in (
        ("layers", " > ".join(composition.layers)),
        ("model", experiment.model.id_or_path),
        ("engine", f"{experiment.base_runtime} ({wiring.source}), {wiring.where}"),
        ("objective", f"{experiment.optimization.objective}, by {experiment.optimization.strategy}"),
        ("", meaning(experiment)),
        ("load points", ", ".join(map(str, points))),
        ("space", f"{plan.space.total} combinations, {sample}{len(plan.space.refused)} refused"),
        *planned.lines(plan),
    ):
        display.sentence(f"{label:<13}{text}", indent=" " * 13)
    names = list(experiment.parameters)
    rows: list[dict[str, Any]] = [
        {"trial": number, **candidate.parameters, **foreseen.columns(wiring.foresight, candidate, points[-1])}
        for number, candidate in enumerate(plan.candidates, start=1)
    ]
    foretold = any(foreseen.COLUMNS[0] in row for row in rows)
    known = foreseen.titles(experiment, plan.candidates) if foretold else ()
    display.line()
    display.sentence(f"candidates{f'; predicted, not measured, at {points[-1]}' if known else ''}")
    alike = [name for name in names if len({repr(row[name]) for row in rows if name in row}) == 1]
    priorities = {**dict.fromkeys(alike, 2), **dict.fromkeys(known[len(foreseen.COLUMNS) :], 1)}
    display.table(rows, ["trial", *names, *known], right=["trial", *known], priorities=priorities)
    if plan.space.refused:
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
