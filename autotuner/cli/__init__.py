"""The `autotune` command line: one file per command, wired together here."""

from __future__ import annotations

from typing import Annotated

import typer

from autotuner import __version__
from autotuner.cli.baseline import app as baseline_app
from autotuner.cli.bench import bench
from autotuner.cli.calibrate import calibrate
from autotuner.cli.clean import clean
from autotuner.cli.command import command
from autotuner.cli.compare import compare
from autotuner.cli.config import app as config_app
from autotuner.cli.doctor import doctor
from autotuner.cli.error_boundary import ErrorBoundary
from autotuner.cli.export import export
from autotuner.cli.help_page import (
    COMPARE,
    CONFIGURE,
    LOAD_TEST,
    MACHINE,
    PREDICT,
    SLA,
    TUNE,
    HelpCommand,
    HelpGroup,
)
from autotuner.cli.predict import PredictGroup
from autotuner.cli.predict import app as predict_app
from autotuner.cli.profiles import app as profiles_app
from autotuner.cli.report import report
from autotuner.cli.run import run
from autotuner.cli.sla import app as sla_app
from autotuner.cli.standard_streams import open_standard_streams
from autotuner.cli.trace import trace
from autotuner.cli.ui import ui
from autotuner.cli.verbose import Verbose, with_verbose

app = typer.Typer(
    cls=ErrorBoundary,
    name="autotune",
    help="Find the engine, flags and load that serve a model best within latency targets, by measuring.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"autotune {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    verbose: Verbose = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with every error.")] = False,
) -> None:
    pass


for _function, _panel in (
    (run, TUNE),
    (report, TUNE),
    (ui, TUNE),
    (command, TUNE),
    (compare, COMPARE),
    (export, COMPARE),
    (bench, LOAD_TEST),
    (trace, LOAD_TEST),
    (calibrate, PREDICT),
    (doctor, MACHINE),
    (clean, MACHINE),
):
    app.command(cls=HelpCommand, rich_help_panel=_panel)(with_verbose(_function))
for _name, _group, _class, _panel in (
    ("baseline", baseline_app, HelpGroup, COMPARE),
    ("profiles", profiles_app, HelpGroup, CONFIGURE),
    ("config", config_app, HelpGroup, CONFIGURE),
    ("predict", predict_app, PredictGroup, PREDICT),
    ("sla", sla_app, HelpGroup, SLA),
):
    app.add_typer(_group, name=_name, cls=_class, rich_help_panel=_panel)
    for _registered in _group.registered_commands:
        _registered.cls = HelpCommand
        if _registered.callback is not None:
            _registered.callback = with_verbose(_registered.callback)


def main() -> None:
    """Run the command line."""
    open_standard_streams()
    app()
