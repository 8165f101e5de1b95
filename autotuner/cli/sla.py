"""`autotune sla`: SLA profiles of prefill and decode workers, and plans made of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotuner.cli.load_options import HARDWARE, JSON_OPTION, LOAD, OUTPUT, TARGETS, option
from autotuner.cli.option_sets import with_option_sets
from autotuner.cli.signals import terminated_as_interrupted
from autotuner.cli.sla_options import DEFAULT_FOLDER, OUTPUT_OPTION, SlaRunOptions

if TYPE_CHECKING:
    from autotuner.errors import NoFeasibleError
    from autotuner.profiling.outcome import ProfileOutcome

app = typer.Typer(
    help="Profile prefill and decode workers under latency targets, and plan disaggregated serving.",
    no_args_is_help=True,
)

PROFILE_ARGUMENT = typer.Argument(metavar="FOLDER", help="Folder of a profile.")


@app.command()
@with_option_sets
def run(
    options: SlaRunOptions,
    output: Annotated[Path, OUTPUT_OPTION] = DEFAULT_FOLDER,
    dry_run: Annotated[bool, option("--dry-run", help="Show the launches and stop.", panel=OUTPUT)] = False,
    pick_with_webui: Annotated[
        bool,
        option("--pick-with-webui", help="Then serve a page on which workers are picked, until one is.", panel=OUTPUT),
    ] = False,
    webui_port: Annotated[
        int | None,
        option(
            "--webui-port", metavar="N", help="Port of that page.", panel=OUTPUT, default="a free one", min=1, max=65535
        ),
    ] = None,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Measure prefill and decode of each parallel mapping, choose workers, and write the planner's files."""
    from autotuner.cli import display, sla_view
    from autotuner.cli.ui import serve_pick
    from autotuner.config.overrides import COMMAND_LINE
    from autotuner.errors import UsageError
    from autotuner.profiling.session import prepare, profile

    if webui_port is not None and not pick_with_webui:
        raise UsageError("--webui-port is the port of a page that was not asked for.", remedy="Add --pick-with-webui.")
    setup = prepare(options.request(), origin=COMMAND_LINE)
    if dry_run:
        sla_view.print_dry_run(setup, output, as_json=as_json)
        return
    display.relay_log()
    with terminated_as_interrupted():
        try:
            outcome = profile(setup, output, accept_nearest=options.accept_nearest)
        except KeyboardInterrupt:
            display.note(f"Interrupted; the points in {output} are kept. Repeat the command to go on.")
            raise
    no_plan = _print_outcome(outcome, as_json=as_json)
    if pick_with_webui and outcome.selection.prefill_pick and outcome.selection.decode_pick:
        serve_pick(output, webui_port or 0, ends_with_pick=True, on_stdout=False)
    error = outcome.infeasible_error()
    if error is not None and not (options.accept_nearest and outcome.is_complete):
        raise error
    if no_plan is not None:
        raise no_plan


@app.command()
def show(
    folder: Annotated[Path, PROFILE_ARGUMENT] = DEFAULT_FOLDER, as_json: Annotated[bool, JSON_OPTION] = False
) -> None:
    """Show what a profile decided and why, from its folder."""
    from autotuner.profiling.session import open_profile

    no_plan = _print_outcome(open_profile(folder), as_json=as_json)
    if no_plan is not None:
        raise no_plan


def _print_outcome(outcome: ProfileOutcome, *, as_json: bool) -> NoFeasibleError | None:
    """Print an outcome; why there is no plan, where the GPU budget holds no worker of each kind."""
    from autotuner.cli import display, sla_view

    if as_json:
        display.json(outcome.to_json())
        return None
    return sla_view.print_outcome(outcome)


@app.command()
def plan(
    folder: Annotated[Path, PROFILE_ARGUMENT] = DEFAULT_FOLDER,
    decode_folder: Annotated[
        Path | None,
        typer.Argument(metavar="DECODE_FOLDER", help="Profile of the decode workers.", show_default="the same folder"),
    ] = None,
    rate: Annotated[
        float | None, option("--rate", metavar="R", help="Requests/s.", panel=LOAD, default="that of the profile")
    ] = None,
    concurrency: Annotated[
        int | None,
        option(
            "--concurrency",
            metavar="N",
            min=1,
            help="Requests in flight, instead of --rate.",
            panel=LOAD,
            default="none",
        ),
    ] = None,
    isl: Annotated[
        float | None,
        option("--isl", metavar="TOKENS", help="Input sequence length.", panel=LOAD, default="that of the profile"),
    ] = None,
    osl: Annotated[
        float | None,
        option("--osl", metavar="TOKENS", help="Output sequence length.", panel=LOAD, default="that of the profile"),
    ] = None,
    ttft: Annotated[
        float | None,
        option("--ttft", metavar="MS", help="Target on TTFT.", panel=TARGETS, default="that of the profile"),
    ] = None,
    itl: Annotated[
        float | None,
        option("--itl", metavar="MS", help="Target on ITL.", panel=TARGETS, default="that of the profile"),
    ] = None,
    total_gpus: Annotated[
        int | None,
        option("--total-gpus", metavar="N", min=1, help="GPU budget.", panel=HARDWARE, default="that of the profile"),
    ] = None,
    prefill_gpus: Annotated[
        int | None,
        option(
            "--prefill-gpus",
            metavar="N",
            min=1,
            help="GPUs of a prefill worker.",
            panel=HARDWARE,
            default="as profiled, else 1",
        ),
    ] = None,
    decode_gpus: Annotated[
        int | None,
        option(
            "--decode-gpus",
            metavar="N",
            min=1,
            help="GPUs of a decode worker.",
            panel=HARDWARE,
            default="as profiled, else 1",
        ),
    ] = None,
    price: Annotated[
        list[str] | None,
        option("--price", metavar="TYPE=PRICE", help="Price per GPU-hour; repeatable.", panel=HARDWARE, default="none"),
    ] = None,
    like: Annotated[
        str,
        option(
            "--like",
            metavar="NAME",
            help="Whose arithmetic: autotune's, or that of Dynamo's planner: dynamo-0.9 (curves), dynamo-1.6 (lines).",
            panel=OUTPUT,
        ),
    ] = "autotune",
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Compute how many prefill and decode workers a load needs, from one profile or two."""
    from autotuner.cli import sla_plan

    values = sla_plan.PlanValues(rate, concurrency, isl, osl, ttft, itl, total_gpus, prefill_gpus, decode_gpus)
    sla_plan.show_plan(folder, decode_folder, values, price or [], like, as_json=as_json)


@app.command()
def check(
    folder: Annotated[Path, PROFILE_ARGUMENT] = DEFAULT_FOLDER,
    decode_gpus: Annotated[
        int | None,
        option(
            "--decode-gpus", metavar="N", min=1, help="GPUs of a decode worker.", panel=HARDWARE, default="as profiled"
        ),
    ] = None,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Check that a planner can use a profile, and that an engine can have run its points."""
    from autotuner.cli import sla_plan

    sla_plan.check_profile(folder, decode_gpus, as_json=as_json)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="FOLDER", help="A profile, the reference.")],
    second: Annotated[Path, typer.Argument(metavar="OTHER", help="The profile to compare with it.")],
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Compare the TTFT and ITL of two profiles at the points of the first."""
    from autotuner.cli import sla_plan

    sla_plan.compare_profiles(first, second, as_json=as_json)


@app.command()
def export(
    folder: Annotated[Path, PROFILE_ARGUMENT] = DEFAULT_FOLDER,
    output: Annotated[
        Path | None,
        option("--output", "-o", metavar="FOLDER", help="Folder for the files.", panel=OUTPUT, default="the profile's"),
    ] = None,
    api: Annotated[
        str, option("--api", metavar="v1beta1|v1alpha1", help="API version of the deployment.", panel=OUTPUT)
    ] = "v1beta1",
    planner: Annotated[
        str,
        option("--planner", metavar="1.6.1|1.0.2|0.9.1", help="Release of Dynamo and its planner.", panel=OUTPUT),
    ] = "1.6.1",
    name: Annotated[
        str | None,
        option("--name", metavar="NAME", help="Name of the deployment.", panel=OUTPUT, default="model and engine"),
    ] = None,
    image: Annotated[
        str | None,
        option("--image", metavar="IMAGE", help="Image of the workers.", panel=OUTPUT, default="that of the release"),
    ] = None,
) -> None:
    """Write Dynamo's deployment of the chosen workers with planner and profile, and its mocker twin."""
    from autotuner.cli import display, sla_plan

    for path in sla_plan.export_manifests(folder, output or folder, api, planner, name, image):
        display.line(str(path))


@app.command()
def apply(
    folder: Annotated[Path, PROFILE_ARGUMENT] = DEFAULT_FOLDER,
    namespace: Annotated[
        str | None,
        option("--namespace", "-n", metavar="NAME", help="Namespace.", panel=OUTPUT, default="kubectl's"),
    ] = None,
    dry_run: Annotated[bool, option("--dry-run", help="Only let the cluster check it.", panel=OUTPUT)] = False,
    yes: Annotated[bool, option("--yes", "-y", help="Do not ask.", panel=OUTPUT)] = False,
    picked: Annotated[
        bool, option("--picked", help="Apply picked_deployment.yaml, of the workers that were picked.", panel=OUTPUT)
    ] = False,
) -> None:
    """Apply config_with_planner.yaml of a profile with kubectl, after a dry run and a question."""
    from autotuner.cli import display
    from autotuner.errors import UsageError
    from autotuner.profiling.manifests import DEPLOYMENT_FILE, apply_deployment
    from autotuner.profiling.pick import MANIFEST_FILE

    path = folder / (MANIFEST_FILE if picked else DEPLOYMENT_FILE)
    if not path.is_file():
        remedy = "Write it with `autotune sla export`, or profile first."
        if picked:
            remedy = f"Pick workers with `autotune ui {folder}`."
        raise UsageError(f"'{folder}' has no {path.name}.", remedy=remedy)
    display.text(apply_deployment(path, namespace=namespace, dry_run=True))
    if dry_run:
        return
    if not yes and not typer.confirm("Apply it?", default=False):
        display.note("Nothing was applied.")
        return
    display.text(apply_deployment(path, namespace=namespace, dry_run=False))
