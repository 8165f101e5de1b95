"""`autotune config`: the composed configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotuner.cli.config_options import ConfigOptions
from autotuner.cli.option_sets import with_option_sets

if TYPE_CHECKING:
    from autotuner.config import Composition, ResolvedValue

app = typer.Typer(help="Show the composed configuration.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    pass


@app.command()
@with_option_sets
def show(
    config_options: ConfigOptions,
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="[KEY]",
            help="One value, such as optimization.strategy, or a section.",
            show_default="all of them",
        ),
    ] = None,
    format: Annotated[
        str, typer.Option("--format", metavar="table|yaml|json", help="Output format.", rich_help_panel="Output")
    ] = "table",
    all_: Annotated[
        bool,
        typer.Option("--all", help="Include the defaults that no layer sets.", rich_help_panel="Output"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Same as --format json.", rich_help_panel="Output")] = False,
) -> None:
    """Show every value with the layer it came from, or one value with every value it overrides."""
    from autotuner.cli import display
    from autotuner.config import yaml_documents
    from autotuner.errors import UsageError, unknown_name_message

    output_format = "json" if as_json else format
    if output_format not in ("table", "yaml", "json"):
        raise UsageError(unknown_name_message("format", output_format, ("table", "yaml", "json")))
    composition = config_options.compose()
    for warning in composition.warnings:
        display.warning(warning)
    if key is not None:
        _print_selection(composition, key, output_format)
        return
    for note in composition.notes:
        display.note(note)
    if output_format == "json":
        display.json(
            {
                "layers": composition.layers,
                "config": composition.data,
                "provenance": composition.provenance,
                "places": composition.places,
                "reasons": composition.reasons,
            }
        )
    elif output_format == "yaml":
        display.text(yaml_documents.dump(composition.data))
    else:
        display.sentence(f"layers: {' > '.join(composition.layers)}")
        display.line()
        _print_table(composition, [row for row in composition.resolved_values() if all_ or row.layer != "default"])


def _print_selection(composition: Composition, key: str, output_format: str) -> None:
    """Print one value, or the values of one section."""
    from autotuner.cli import display
    from autotuner.config import yaml_documents
    from autotuner.config.merging import value_at
    from autotuner.errors import UsageError, unknown_name_message

    rows = composition.resolved_values()
    section_values = [row for row in rows if row.path.startswith(f"{key}.")]
    row = next((row for row in rows if row.path == key), None)
    if row is None and not section_values:
        paths = [row.path for row in rows]
        sections = {path.rpartition(".")[0] for path in paths} - {""}
        raise UsageError(
            unknown_name_message("value", key, [*paths, *sections]),
            remedy="`autotune config show --all` lists all values.",
        )
    if row is None:
        if output_format == "json":
            display.json({row.path: _value_json(composition, row) for row in section_values})
        elif output_format == "yaml":
            display.text(
                yaml_documents.dump(value_at(composition.data, key) or {row.path: row.value for row in section_values})
            )
        else:
            _print_table(composition, section_values)
    elif output_format == "json":
        display.json(_value_json(composition, row))
    elif output_format == "yaml":
        display.line(yaml_documents.dump_inline(row.value))
    else:
        _print_explanation(composition, row)


def _print_explanation(composition: Composition, row: ResolvedValue) -> None:
    from autotuner.cli import display
    from autotuner.config import yaml_documents
    from autotuner.config.schema import default_value

    lines = [("", f"{row.path} = {yaml_documents.dump_inline(row.value)}"), ("from", _origin(row))]
    if row.path in composition.reasons:
        lines.append(("because", composition.reasons[row.path]))
    overridden = [
        f"{yaml_documents.dump_inline(other.value)}, from {_origin(other)}" for other in _overridden(composition, row)
    ]
    default = default_value(row.path)
    if row.layer != "default" and default is not None:
        overridden.append(f"{yaml_documents.dump_inline(default)}, the default")
    lines += [("instead of", text) for text in overridden]
    for label, text in lines:
        display.sentence(f"{label:12}{text}" if label else text, indent=" " * 12)


def _overridden(composition: Composition, row: ResolvedValue) -> list[ResolvedValue]:
    return composition.overridden_values.get(row.path, [])


def _value_json(composition: Composition, row: ResolvedValue) -> dict[str, Any]:
    return {
        "value": row.value,
        "layer": row.layer,
        "place": row.place,
        "because": composition.reasons.get(row.path, ""),
        "overridden": [
            {"value": other.value, "layer": other.layer, "place": other.place}
            for other in _overridden(composition, row)
        ],
    }


def _origin(row: ResolvedValue) -> str:
    from autotuner.config.catalog import display_place

    return f"{row.layer}, {display_place(row.place)}" if row.place else row.layer


def _short_origin(composition: Composition, row: ResolvedValue) -> str:
    """Layer of a value, short enough for a table."""
    from autotuner.config.merging import CALLER_LAYERS

    kind, *names = row.layer.split(":")
    if kind == "profile":
        return f"profile {names[0]}"
    if row.path in composition.reasons:
        return f"{row.layer}, this machine"
    if row.layer in CALLER_LAYERS:
        place = "--set" if row.place.startswith("--set ") else _origin(row).partition(", ")[2]
        return f"{row.layer}, {place}" if place else row.layer
    return row.layer


def _print_table(composition: Composition, rows: Sequence[ResolvedValue]) -> None:
    from autotuner.cli import display
    from autotuner.config import yaml_documents

    cells = [
        {"value": r.path, "is": yaml_documents.dump_inline(r.value), "from": _short_origin(composition, r)}
        for r in rows
    ]
    display.table(cells, ["value", "is", "from"])
