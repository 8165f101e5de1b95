"""`autotune profiles`: what there is to start from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from autotuner.config import ConfigLayer

app = typer.Typer(help="List, show, compare and check profiles, SLOs and presets.", no_args_is_help=True)
JsonOption = Annotated[
    bool, typer.Option("--json", help="Machine-readable result on stdout.", rich_help_panel="Output")
]
KindOption = Annotated[
    str | None,
    typer.Option(
        "--kind",
        metavar="profile|slo|preset",
        help="Only this kind.",
        rich_help_panel="Output",
        show_default="all of them",
    ),
]

KIND_TITLES = {"profile": "profiles", "SLO": "SLOs", "preset": "presets"}
KIND_USAGE = {
    "profile": "NAME, several as NAME,NAME",
    "SLO": "NAME, on top of the SLO base",
    "preset": "NAME, as often as needed",
}


@app.command("list")
def list_(kind: KindOption = None, as_json: JsonOption = False) -> None:
    """List profiles, SLOs and presets: bundled ones, those in ./profiles, and your own."""
    from autotuner.cli import display
    from autotuner.cli.columns import columns
    from autotuner.config import catalog

    groups = {name: catalog.describe(name) for name in _parse_kinds(kind)}
    if as_json:
        display.json([entry for entries in groups.values() for entry in entries])
        return
    for number, (name, entries) in enumerate(groups.items()):
        if number:
            display.line()
        display.line(f"{KIND_TITLES[name]}: {catalog.OPTION_BY_KIND[name]} {KIND_USAGE[name]}")
        rows = [(name, "what it is for", "from"), *((e["name"], _purpose(e), _source(e)) for e in entries)]
        for line in columns(rows, display.stdout_console().width, ((1, 30), (2, 14), (0, 10))):
            display.line(line)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name or file of a profile, an SLO or a preset.")],
    kind: KindOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a profile, an SLO or a preset: what it is for, and the data of its layers."""
    from autotuner.cli import display
    from autotuner.cli.columns import fold
    from autotuner.config import catalog, yaml_documents

    matches = catalog.find_by_name(name, _parse_kinds(kind))
    chosen, *others = matches
    profile = matches[chosen]
    about = {"kind": chosen.lower(), **profile.describe()}
    layers = [layer.describe() for layer in profile.layers]
    if as_json:
        display.json({**about, "layers": layers})
        return
    for other in others:
        display.note(f"There is also a{'n' if other == 'SLO' else ''} {other} '{name}': --kind {other.lower()}")
    for line in fold(f"{chosen} {about['name']}: {about['description']}", display.stdout_console().width):
        display.line(line)
    display.line(f"  {'apply with':16} {catalog.OPTION_BY_KIND[chosen]} {name}")
    for label in ("use_case", "tags", "recommended_for"):
        value = about[label]
        if value:
            text = ", ".join(value) if isinstance(value, list) else value
            display.line(f"  {label.replace('_', ' '):16} {text}")
    display.line(f"  {'from':16} {_source(about)}")
    for layer in layers:
        display.line(f"\nlayer {layer.pop('name')}")
        if len(layer) == 1:
            layer = layer["data"]
        display.text(yaml_documents.dump(layer))


def _parse_kinds(kind: str | None) -> tuple[str, ...]:
    """The kinds that --kind selects, in the words of the catalog."""
    from autotuner.config.catalog import FOLDER_BY_KIND
    from autotuner.errors import UsageError, unknown_name_message

    words = {name.lower(): name for name in FOLDER_BY_KIND}
    if kind is None:
        return tuple(FOLDER_BY_KIND)
    if kind.lower() not in words:
        raise UsageError(unknown_name_message("kind", kind, words), remedy=f"Give one of: {', '.join(words)}.")
    return (words[kind.lower()],)


def _purpose(entry: Mapping[str, Any]) -> str:
    return f"cannot be used: {entry['problem']}" if "problem" in entry else str(entry["description"])


def _source(entry: Mapping[str, Any]) -> str:
    """Where something is from: the package, a file, or Python."""
    from autotuner.config.catalog import display_path

    source = str(entry["source"])
    where = source if source == "registered" else display_path(source)
    return "bundled" if where.startswith("bundled ") else where


@app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="FIRST", help="Profile name or file.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="Profile name or file.")],
    as_json: JsonOption = False,
) -> None:
    """Compare two profiles, value by value."""
    from autotuner.cli import display
    from autotuner.config import TaskConfigFactory, leaves, merge

    sides = []
    for name in (first, second):
        merged: dict[str, Any] = {}
        for layer in TaskConfigFactory.get_profile(name).layers:
            merged = merge(merged, _layer_data(layer))
        sides.append(leaves(merged))
    keys = [key for key in dict.fromkeys([*sides[0], *sides[1]]) if sides[0].get(key) != sides[1].get(key)]
    if as_json:
        display.json([{"value": key, first: sides[0].get(key), second: sides[1].get(key)} for key in keys])
    elif not keys:
        display.line(f"{first} and {second} set the same values.")
    else:
        rows = [{"value": key, first: sides[0].get(key, "-"), second: sides[1].get(key, "-")} for key in keys]
        display.table(rows, ["value", first, second])


def _layer_data(layer: ConfigLayer) -> dict[str, Any]:
    from autotuner.config import TaskContext

    return dict(layer.data(TaskContext()) if callable(layer.data) else layer.data)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Profile file to check.")],
    as_json: JsonOption = False,
) -> None:
    """Check a profile file: its form, its keys, the names in its rules, and that it composes."""
    from autotuner.cli import display
    from autotuner.config import check_file
    from autotuner.engines.parameters import canonical_parameters, is_known_parameter
    from autotuner.rules import Rules

    composition = check_file(file)
    Rules.from_experiment(composition.experiment).check_names(
        composition.experiment.parameters, is_known_parameter, canonical_parameters()
    )
    if as_json:
        display.json({"file": str(file), "layers": composition.layers, "warnings": composition.warnings})
        return
    for warning in composition.warnings:
        display.warning(warning)
    display.line(f"{file} is a valid profile.")
