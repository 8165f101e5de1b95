"""`autotune profiles`: what there is to start from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from autotuner.config import ConfigLayer

app = typer.Typer(help="List, show, compare and check profiles.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.", rich_help_panel="Output")]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the profiles: bundled, ./profiles, and your own."""
    from autotuner.cli import display
    from autotuner.config import TaskConfigFactory

    found = TaskConfigFactory.list_profiles()
    if as_json:
        display.json(found)
        return
    rows = [
        {"profile": p["name"], "description": p["description"], "use case": p["use_case"], "from": p["source"]}
        for p in found
    ]
    display.table(rows, ["profile", "description", "use case", "from"])


@app.command()
def show(name: Annotated[str, typer.Argument(help="Profile name or file.")], as_json: Json = False) -> None:
    """Show one profile: what it is for, and the data of its layers."""
    from autotuner.cli import display
    from autotuner.config import TaskConfigFactory, documents

    profile = TaskConfigFactory.get_profile(name)
    about = profile.describe()
    layers = [{"name": layer.name, "data": _data(layer)} for layer in profile.layers]
    if as_json:
        display.json({**about, "layers": layers})
        return
    display.line(f"{about['name']}: {about['description']}")
    for label in ("use_case", "tags", "recommended_for", "source"):
        value = about[label]
        display.line(f"  {label.replace('_', ' '):16} {', '.join(value) if isinstance(value, list) else value}")
    for layer in layers:
        display.line(f"\nlayer {layer['name']}")
        display.text(documents.write(layer["data"]))


@app.command()
def diff(
    first: Annotated[str, typer.Argument(help="Profile name or file.")],
    second: Annotated[str, typer.Argument(help="Profile name or file.")],
    as_json: Json = False,
) -> None:
    """Compare two profiles, value by value."""
    from autotuner.cli import display
    from autotuner.config import TaskConfigFactory, leaves, merge

    sides = []
    for name in (first, second):
        merged: dict[str, Any] = {}
        for layer in TaskConfigFactory.get_profile(name).layers:
            merged = merge(merged, _data(layer))
        sides.append(leaves(merged))
    keys = [key for key in dict.fromkeys([*sides[0], *sides[1]]) if sides[0].get(key) != sides[1].get(key)]
    if as_json:
        display.json([{"value": key, first: sides[0].get(key), second: sides[1].get(key)} for key in keys])
    elif not keys:
        display.line(f"{first} and {second} set the same values.")
    else:
        rows = [{"value": key, first: sides[0].get(key, "-"), second: sides[1].get(key, "-")} for key in keys]
        display.table(rows, ["value", first, second])


def _data(layer: ConfigLayer) -> dict[str, Any]:
    from autotuner.config import TaskContext

    return dict(layer.data(TaskContext()) if callable(layer.data) else layer.data)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="Profile file to check.")],
    as_json: Json = False,
) -> None:
    """Check a profile file: its form, its keys, the names in its rules, and that it composes."""
    from autotuner.cli import display
    from autotuner.config import check_file
    from autotuner.engines.names import knows
    from autotuner.engines.parameters import canonical
    from autotuner.rules import Rules

    composition = check_file(file)
    Rules.of(composition.experiment).check_names(composition.experiment.parameters, knows, canonical())
    if as_json:
        display.json({"file": str(file), "layers": composition.layers, "warnings": composition.warnings})
        return
    for warning in composition.warnings:
        display.warning(warning)
    display.line(f"{file} is a valid profile.")
