"""`autotune profiles`: list, show, compare and check configuration profiles."""

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
        help="Restrict to this kind.",
        rich_help_panel="Output",
        show_default="all of them",
    ),
]

KIND_TITLES = {"profile": "profiles", "SLO": "SLOs", "preset": "presets"}
KIND_USAGE = {
    "profile": "NAME, or NAME,NAME for several",
    "SLO": "NAME, on top of the SLO base",
    "preset": "NAME, repeatable",
}


@app.command("list")
def list_(kind: KindOption = None, as_json: JsonOption = False) -> None:
    """List profiles, SLOs and presets: bundled, in ./profiles, and your own."""
    from autotuner.cli import display
    from autotuner.config import catalog

    groups = {kind_name: catalog.describe(kind_name) for kind_name in _parse_kinds(kind)}
    if as_json:
        display.json([entry for entries in groups.values() for entry in entries])
        return
    for index, (kind_name, entries) in enumerate(groups.items()):
        if index:
            display.line()
        display.line(f"{KIND_TITLES[kind_name]}: {catalog.OPTION_BY_KIND[kind_name]} {KIND_USAGE[kind_name]}")
        rows = [{kind_name: e["name"], "purpose": _purpose(e), "from": _origin_text(e)} for e in entries]
        display.table(rows, [kind_name, "purpose", "from"])


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name or file of a profile, an SLO or a preset.")],
    kind: KindOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a profile, an SLO or a preset: its purpose and the data of its layers."""
    from autotuner.cli import display
    from autotuner.config import catalog, yaml_documents

    matches = catalog.find_by_name(name, _parse_kinds(kind))
    selected_kind, *other_kinds = matches
    profile = matches[selected_kind]
    description = {"kind": selected_kind.lower(), **profile.describe()}
    layers = [layer.describe() for layer in profile.layers]
    if as_json:
        display.json({**description, "layers": layers})
        return
    for other_kind in other_kinds:
        display.note(
            f"There is also a{'n' if other_kind == 'SLO' else ''} {other_kind} '{name}': --kind {other_kind.lower()}"
        )
    display.sentence(f"{selected_kind} {description['name']}: {description['description']}")
    display.line(f"  {'apply with':16} {catalog.OPTION_BY_KIND[selected_kind]} {name}")
    for label in ("use_case", "tags", "recommended_for"):
        value = description[label]
        if value:
            text = ", ".join(value) if isinstance(value, list) else value
            display.line(f"  {label.replace('_', ' '):16} {text}")
    display.line(f"  {'from':16} {_origin_text(description)}")
    for layer in layers:
        display.line(f"\nlayer {layer.pop('name')}")
        if len(layer) == 1:
            layer = layer["data"]
        display.text(yaml_documents.dump(layer))


def _parse_kinds(kind: str | None) -> tuple[str, ...]:
    """Kinds selected by --kind, as the catalog spells them."""
    from autotuner.config.catalog import FOLDER_BY_KIND
    from autotuner.errors import UsageError, unknown_name_message

    kinds = {name.lower(): name for name in FOLDER_BY_KIND}
    if kind is None:
        return tuple(FOLDER_BY_KIND)
    if kind.lower() not in kinds:
        raise UsageError(unknown_name_message("kind", kind, kinds), remedy=f"Give one of: {', '.join(kinds)}.")
    return (kinds[kind.lower()],)


def _purpose(entry: Mapping[str, Any]) -> str:
    return f"cannot be used: {entry['problem']}" if "problem" in entry else str(entry["description"])


def _origin_text(entry: Mapping[str, Any]) -> str:
    """Where a profile, SLO or preset comes from: `bundled`, `registered` (from Python), or the path of its file."""
    from autotuner.config.catalog import display_path

    source = str(entry["source"])
    path = source if source == "registered" else display_path(source)
    return "bundled" if path.startswith("bundled ") else path


@app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="FIRST", help="Profile name or file.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="Profile name or file.")],
    as_json: JsonOption = False,
) -> None:
    """Compare two profiles, value by value."""
    from autotuner.cli import display
    from autotuner.config import TaskConfigFactory, leaves, merge

    values = []
    for name in (first, second):
        merged: dict[str, Any] = {}
        for layer in TaskConfigFactory.get_profile(name).layers:
            merged = merge(merged, _layer_data(layer))
        values.append(leaves(merged))
    changed_keys = [key for key in dict.fromkeys([*values[0], *values[1]]) if values[0].get(key) != values[1].get(key)]
    if as_json:
        display.json([{"value": key, first: values[0].get(key), second: values[1].get(key)} for key in changed_keys])
    elif not changed_keys:
        display.line(f"{first} and {second} set the same values.")
    else:
        rows = [{"value": key, first: values[0].get(key, "-"), second: values[1].get(key, "-")} for key in changed_keys]
        display.table(rows, ["value", first, second])


def _layer_data(layer: ConfigLayer) -> dict[str, Any]:
    from autotuner.config import TaskContext

    return dict(layer.data(TaskContext()) if callable(layer.data) else layer.data)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Profile file to check.")],
    as_json: JsonOption = False,
) -> None:
    """Check a profile file: its structure, keys, rules and values, and that it composes."""
    from autotuner.cli import display
    from autotuner.config import check_file
    from autotuner.engines.parameters import canonical_parameters, check_values, is_known_parameter
    from autotuner.rules import Rules

    composition = check_file(file, check_values=check_values)
    Rules.from_experiment(composition.experiment).check_names(
        composition.experiment.parameters, is_known_parameter, canonical_parameters()
    )
    if as_json:
        display.json({"file": str(file), "layers": composition.layers, "warnings": composition.warnings})
        return
    for warning in composition.warnings:
        display.warning(warning)
    display.line(f"{file} is a valid profile.")
