"""`autotune run`: tune an engine."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotuner.cli.cluster_options import RunClusterOptionSet, reject_cluster_options
from autotuner.cli.config_options import ConfigOptions
from autotuner.cli.error_boundary import EXIT_INTERRUPTED
from autotuner.cli.gate import FAIL_ON_OPTION, Gate
from autotuner.cli.load_options import DEFAULT_RUNS_FOLDER, JSON_OPTION, OUTPUT, RUNS_FOLDER_OPTION, SEARCH, option
from autotuner.cli.option_sets import with_option_sets
from autotuner.cli.signals import terminated_as_interrupted

if TYPE_CHECKING:
    from autotuner.config import Composition
    from autotuner.run_setup import RunSetup
    from autotuner.search.plan import Plan
    from autotuner.session import Session


@with_option_sets
def run(
    config_options: ConfigOptions,
    cluster: RunClusterOptionSet,
    output: Annotated[Path, RUNS_FOLDER_OPTION] = DEFAULT_RUNS_FOLDER,
    dry_run: Annotated[
        bool, option("--dry-run", help="Show the plan without launching anything.", panel=OUTPUT)
    ] = False,
    resume: Annotated[
        str | None,
        option(
            "--resume",
            metavar="[RUN]",
            help="Resume this run (folder or name), or the newest; finished trials are not repeated.",
            panel=OUTPUT,
            default="a new run",
        ),
    ] = None,
    parallel_experiments: Annotated[
        int,
        option(
            "--parallel-experiments",
            metavar="N",
            help="Of several experiments, how many run side by side, each on GPUs of its own.",
            panel=SEARCH,
            min=1,
        ),
    ] = 1,
    fail_on: Annotated[str, FAIL_ON_OPTION] = "infeasible",
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Compose a configuration, launch and measure candidates, rank them, and print the winner's launch command."""
    from autotuner.cli import display
    from autotuner.session import Session

    gate = Gate.parse(fail_on)
    if given := cluster.as_set_options():
        config_options = replace(config_options, set=[*(config_options.set or []), *given])
    if resume is not None:
        _reject_changes(config_options, dry_run, parallel_experiments)
        display.relay_log()
        _tune(Session.resume(resume or None, output), as_json, gate)
        return
    display.relay_log()
    compositions = config_options.compose_all()
    if given:
        for each in compositions.values():
            reject_cluster_options(cluster, each.experiment.deployment)
    for warning in dict.fromkeys(text for each in compositions.values() for text in each.warnings):
        display.warning(warning)
    if len(compositions) > 1:
        from autotuner.cli.experiments import plan_experiments, run_experiments

        if dry_run:
            plan_experiments(compositions, parallel_experiments, as_json)
        else:
            run_experiments(compositions, output, parallel_experiments, as_json, gate)
        return
    if parallel_experiments > 1:
        display.warning("--parallel-experiments changes nothing here: one experiment is asked for.")
    composition = next(iter(compositions.values()))
    if dry_run:
        from autotuner.run_setup import RunSetup

        setup = RunSetup.from_experiment(composition.experiment)
        for shortcoming in setup.shortcomings(output):
            display.warning(f"this machine cannot do the run yet: {shortcoming}")
        _print_plan(composition, setup, as_json)
        return
    for note in composition.notes:
        display.note(note)
    _tune(Session.start(composition, output), as_json, gate)


def _reject_changes(config_options: ConfigOptions, dry_run: bool, parallel_experiments: int) -> None:
    """Reject options that would change the configuration of a resumed run."""
    from autotuner.errors import UsageError

    defaults = ConfigOptions()
    changed = [
        field.name
        for field in fields(ConfigOptions)
        if getattr(config_options, field.name) != getattr(defaults, field.name)
    ]
    changed += ["dry_run"] if dry_run else []
    changed += ["parallel_experiments"] if parallel_experiments > 1 else []
    if changed:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
        raise UsageError(
            "--resume keeps the configuration that the run was started with.",
            why=f"{options} would change it." if not dry_run else f"It cannot be combined with {options}.",
            remedy="Leave the other options out, or start a new run.",
        )


def _tune(session: Session, as_json: bool, gate: Gate) -> None:
    from autotuner.cli import display
    from autotuner.cli.live_view import live_view_for
    from autotuner.cli.results import print_result
    from autotuner.errors import pluralize
    from autotuner.escaping import for_shell

    store, plan = session.store, session.setup.plan
    with terminated_as_interrupted(), store.lock():
        finished_trials = store.summaries()
        limit = "at most " if plan.may_end_early else ""
        launches = pluralize(plan.launch_count, "launch", "launches")
        display.note(f"run folder {store.path}: {limit}{launches}, {len(finished_trials)} of them finished")
        try:
            with live_view_for(plan, finished_trials, store.path) as view:
                result = session.tune(view)
        except KeyboardInterrupt as interrupt:
            display.note(f"Interrupted; {_kept_text(len(store.summaries()))}. Resume with:")
            display.note(f"  autotune run --resume {for_shell(str(store.path))}")
            raise typer.Exit(EXIT_INTERRUPTED) from interrupt
    if finished_trials and len(result.trials) == len(finished_trials):
        display.note(f"This run is complete: nothing remained to launch. {_ranked_again_text(len(finished_trials))}")
    print_result(result, as_json)
    gate.check_run(result.view)


def _kept_text(trials: int) -> str:
    return "1 finished trial is kept" if trials == 1 else f"{trials} finished trials are kept"


def _ranked_again_text(trials: int) -> str:
    return "Its trial was ranked again." if trials == 1 else f"Its {trials} trials were ranked again."


def _print_plan(composition: Composition, setup: RunSetup, as_json: bool) -> None:
    from autotuner.cli import display, plan_forecast, plan_text
    from autotuner.errors import pluralize
    from autotuner.report.objective_text import objective_meaning

    plan = setup.plan
    load_points = plan.workload.load_points
    if as_json:
        display.json(
            {
                "layers": composition.layers,
                "source": setup.source,
                "combinations": plan.space.combination_count,
                "launches": plan.launch_count,
                "parallel_trials": setup.experiment.optimization.parallel_trials,
                "confirmations": plan.confirmations,
                "may_end_early": plan.may_end_early,
                "candidates": [dict(candidate.parameters) for candidate in plan.candidates],
                "predicted": plan_forecast.forecasts_json(setup.forecaster, plan.candidates, load_points),
                "refused": [{"candidate": str(c), "reason": reason} for c, reason in plan.space.refusals],
                "load_points": [str(point) for point in load_points],
                "weights": setup.forecaster.weights_texts(plan.candidates),
                "model_notes": list(setup.forecaster.model_notes),
                "estimated_seconds": round(plan.usual_cost.seconds),
                "estimated_seconds_at_most": round(plan.max_cost.seconds),
                "estimated_gpu_hours": round(plan.usual_cost.gpu_hours, 3),
                "estimated_gpu_hours_at_most": round(plan.max_cost.gpu_hours, 3),
            }
        )
        return
    for remark in setup.forecaster.model_notes:
        display.warning(remark)
    experiment = setup.experiment
    weights = setup.forecaster.weights_texts(plan.candidates)
    reason = "" if setup.is_simulated else composition.reasons.get("deployment.mode", "")
    checked_count = len(plan.space.candidates) + len(plan.space.refusals)
    combinations = pluralize(plan.space.combination_count, "combination")
    sample_text = f"{checked_count:,} of them drawn, " if checked_count < plan.space.combination_count else ""
    for label, text in (
        ("layers", " > ".join(composition.layers)),
        ("model", experiment.model.id_or_path),
        *([("weights", "; ".join(weights))] if weights else []),
        (
            "engine",
            f"{experiment.base_runtime} ({setup.source}), {setup.run_location}{f': {reason}' if reason else ''}",
        ),
        ("objective", f"{experiment.optimization.objective}, by {experiment.optimization.strategy}"),
        ("", objective_meaning(experiment)),
        ("load points", ", ".join(map(str, load_points))),
        ("space", f"{combinations}, {sample_text}{len(plan.space.refusals)} refused"),
        *plan_text.summary_lines(plan),
    ):
        display.sentence(f"{label:<13}{text}", indent=" " * 13)
    plan_text.print_candidates(plan, setup.forecaster)
    if plan.space.refusals:
        names = list(experiment.parameters)
        constants = [name for name in names if len(experiment.parameters[name]) == 1]
        priorities = dict.fromkeys(constants, 2)
        display.line()
        display.table(_refused_rows(plan), ["", *names, "refused because"], title="refused", priorities=priorities)


def _refused_rows(plan: Plan) -> list[dict[str, Any]]:
    """The first refused combinations for each reason, and how many more there are."""
    from autotuner.report.refused import MAX_NAMED_CANDIDATES, group_by_reason

    rows: list[dict[str, Any]] = []
    for reason, candidates in group_by_reason(plan.space.refusals).items():
        rows += [{**candidate.parameters, "refused because": reason} for candidate in candidates[:MAX_NAMED_CANDIDATES]]
        if len(candidates) > MAX_NAMED_CANDIDATES:
            rows.append({"": f"and {len(candidates) - MAX_NAMED_CANDIDATES} more", "refused because": reason})
    return rows
