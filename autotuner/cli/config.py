"""`autotune config`: what the layers compose to."""

from __future__ import annotations

from typing import Annotated

import typer

from autotuner.cli.asked import Asked, asks

app = typer.Typer(help="Show the composed configuration.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    pass


@app.command()
@asks
def show(
    asked: Asked,
    format: Annotated[
        str, typer.Option("--format", metavar="table|yaml|json", help="How it is written.", rich_help_panel="Output")
    ] = "table",
    as_json: Annotated[
        bool, typer.Option("--json", help="The same as --format json.", rich_help_panel="Output")
    ] = False,
) -> None:
    """Show every resolved value with the layer it came from."""
    from autotuner.cli import display
    from autotuner.config import documents, leaves
    from autotuner.errors import UsageError, unknown

    chosen = "json" if as_json else format
    if chosen not in ("table", "yaml", "json"):
        raise UsageError(unknown("format", chosen, ("table", "yaml", "json")))
    composition = asked.compose()
    for warning in composition.warnings:
        display.warning(warning)
    if chosen == "json":
        display.json({"layers": composition.layers, "config": composition.data, "provenance": composition.provenance})
    elif chosen == "yaml":
        display.text(documents.write(composition.data))
    else:
        display.line("layers: " + " > ".join(composition.layers))
        rows = [
            {"value": key, "is": value, "from layer": composition.provenance.get(key, "")}
            for key, value in leaves(composition.data).items()
        ]
        display.table(rows, ["value", "is", "from layer"])
