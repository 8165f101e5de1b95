"""`autotune config`: what the layers compose to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotuner.cli.config_options import ConfigOptions, with_config_options

if TYPE_CHECKING:
    from autotuner.config import Composition, ResolvedValue

app = typer.Typer(help="Show the composed configuration.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    pass


@app.command()
@with_config_options
def show(
    config_options: ConfigOptions,
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="[KEY]",
            help="One value, such as optimization.strategy, or one section.",
            show_default="all of them",
        ),
    ] = None,
    format: Annotated[
        str, typer.Option("--format", metavar="table|yaml|json", help="How it is written.", rich_help_panel="Output")
    ] = "table",
    all_: Annotated[
        bool,
        typer.Option("--all", help="Also the values that no layer sets: the defaults.", rich_help_panel="Output"),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The same as --format json.", rich_help_panel="Output")
    ] = False,
) -> None:
    """Show every value with the layer it came from, or one value with all that it overrode."""
    from autotuner.cli import display
    from autotuner.cli.columns import fold
    from autotuner.config import yaml_documents
    from autotuner.errors import UsageError, unknown_name_message

    chosen = "json" if as_json else format
    if chosen not in ("table", "yaml", "json"):
        raise UsageError(unknown_name_message("format", chosen, ("table", "yaml", "json")))
    composition = config_options.compose()
    for warning in composition.warnings:
        display.warning(warning)
    if key is not None:
        _print_selection(composition, key, chosen)
        return
    for note in composition.notes:
        display.note(note)
    if chosen == "json":
        display.json(
            {
                "layers": composition.layers,
                "config": composition.data,
                "provenance": composition.provenance,
                "places": composition.places,
                "reasons": composition.reasons,
            }
        )
    elif chosen == "yaml":
        display.text(yaml_documents.dump(composition.data))
    else:
        for line in fold("layers: " + " > ".join(composition.layers), display.stdout_console().width):
            display.line(line)
        display.line()
        _print_table(composition, [row for row in composition.resolved_values() if all_ or row.layer != "default"])


def _print_selection(composition: Composition, key: str, form: str) -> None:
    """Show one value, or the values of one section."""
    from autotuner.cli import display
    from autotuner.config import yaml_documents
    from autotuner.config.merging import value_at
    from autotuner.errors import UsageError, unknown_name_message

    rows = composition.resolved_values()
    inside = [row for row in rows if row.path.startswith(f"{key}.")]
    row = next((row for row in rows if row.path == key), None)
    if row is None and not inside:
        paths = [row.path for row in rows]
        sections = {path.rpartition(".")[0] for path in paths} - {""}
        raise UsageError(
            unknown_name_message("value", key, [*paths, *sections]),
            remedy="`autotune config show --all` lists all values.",
        )
    if row is None:
        if form == "json":
            display.json({row.path: _value_json(composition, row) for row in inside})
        elif form == "yaml":
            display.text(
                yaml_documents.dump(value_at(composition.data, key) or {row.path: row.value for row in inside})
            )
        else:
            _print_table(composition, inside)
    elif form == "json":
        display.json(_value_json(composition, row))
    elif form == "yaml":
        display.line(yaml_documents.dump_inline(row.value))
    else:
        _print_explanation(composition, row)


def _print_explanation(composition: Composition, row: ResolvedValue) -> None:
    """One value, where it came from, and what it overrode."""
    from autotuner.cli import display
    from autotuner.cli.columns import fold
    from autotuner.config import yaml_documents
    from autotuner.config.schema import default_value

    lines = [("", f"{row.path} = {yaml_documents.dump_inline(row.value)}"), ("from", _origin(row))]
    if row.path in composition.reasons:
        lines.append(("because", composition.reasons[row.path]))
    earlier = [
        f"{yaml_documents.dump_inline(other.value)}, from {_origin(other)}" for other in _overridden(composition, row)
    ]
    known = default_value(row.path)
    if row.layer != "default" and known is not None:
        earlier.append(f"{yaml_documents.dump_inline(known)}, the default")
    lines += [("instead of", text) for text in earlier]
    for label, text in lines:
        first, *rest = fold(text, display.stdout_console().width - 12)
        display.line(f"{label:12}{first}" if label else first)
        for line in rest:
            display.line(f"{'':12}{line}")


def _overridden(composition: Composition, row: ResolvedValue) -> list[ResolvedValue]:
    return composition.overridden_values.get(row.path, [])


def _value_json(composition: Composition, row: ResolvedValue) -> dict[str, Any]:
    """A value for JSON."""
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
    """Layer and place of a value."""
    from autotuner.config.catalog import display_place

    return f"{row.layer}, {display_place(row.place)}" if row.place else row.layer


def _short_origin(composition: Composition, row: ResolvedValue) -> str:
    """Layer of a value, in few words."""
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
    """One line per value."""
    from autotuner.cli import display
    from autotuner.cli.columns import columns
    from autotuner.config import yaml_documents

    cells = [
        ("value", "is", "from"),
        *((r.path, yaml_documents.dump_inline(r.value), _short_origin(composition, r)) for r in rows),
    ]
    for line in columns(cells, display.stdout_console().width, ((1, 16), (2, 14), (0, 24))):
        display.line(line)
