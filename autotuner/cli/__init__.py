"""The `autotune` command line: one file per command, wired together here."""

from __future__ import annotations

from typing import Annotated

import typer

from autotuner import __version__
from autotuner.cli.bench import bench
from autotuner.cli.calibrate import calibrate
from autotuner.cli.clean import clean
from autotuner.cli.command import command
from autotuner.cli.config import app as config_app
from autotuner.cli.doctor import doctor
from autotuner.cli.edge import Edge
from autotuner.cli.predict import predict
from autotuner.cli.profiles import app as profiles_app
from autotuner.cli.report import report
from autotuner.cli.run import run

app = typer.Typer(
    cls=Edge,
    name="autotune",
    help="Find the engine, flags and load that serve a model best within latency targets, by measuring.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"autotune {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with every error.")] = False,
) -> None:
    pass


app.command()(run)
app.command()(bench)
app.add_typer(profiles_app, name="profiles")
app.add_typer(config_app, name="config")
app.command()(report)
app.command()(command)
app.command()(predict)
app.command()(calibrate)
app.command()(doctor)
app.command()(clean)


def main() -> None:
    """Run the command line."""
    app()
