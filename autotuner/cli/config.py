"""`autotune config`: what the layers compose to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotuner.cli.config_options import Asked, asks

if TYPE_CHECKING:
    from autotuner.config import Composition, Row

app = typer.Typer(help="Show the composed configuration.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    pass


@app.command()
@asks
def show(
    asked: Asked,
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
    from autotuner.errors import UsageError, unknown

    chosen = "json" if as_json else format
    if chosen not in ("table", "yaml", "json"):
        raise UsageError(unknown("format", chosen, ("table", "yaml", "json")))
    composition = asked.compose()
    for warning in composition.warnings:
        display.warning(warning)
    if key is not None:
        _show_part(composition, key, chosen)
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
        display.text(yaml_documents.write(composition.data))
    else:
        for line in fold("layers: " + " > ".join(composition.layers), display.out().width):
            display.line(line)
        display.line()
        _table(composition, [row for row in composition.rows() if all_ or row.layer != "default"])


def _show_part(composition: Composition, key: str, form: str) -> None:
    """Show one value, or the values of one section."""
    from autotuner.cli import display
    from autotuner.config import yaml_documents
    from autotuner.config.merging import dig
    from autotuner.errors import UsageError, unknown

    rows = composition.rows()
    inside = [row for row in rows if row.path.startswith(f"{key}.")]
    row = next((row for row in rows if row.path == key), None)
    if row is None and not inside:
        paths = [row.path for row in rows]
        sections = {path.rpartition(".")[0] for path in paths} - {""}
        raise UsageError(
            unknown("value", key, [*paths, *sections]), remedy="`autotune config show --all` lists all values."
        )
    if row is None:
        if form == "json":
            display.json({row.path: _plain(composition, row) for row in inside})
        elif form == "yaml":
            display.text(yaml_documents.write(dig(composition.data, key) or {row.path: row.value for row in inside}))
        else:
            _table(composition, inside)
    elif form == "json":
        display.json(_plain(composition, row))
    elif form == "yaml":
        display.line(yaml_documents.inline(row.value))
    else:
        _explain(composition, row)


def _explain(composition: Composition, row: Row) -> None:
    """One value, where it came from, and what it overrode."""
    from autotuner.cli import display
    from autotuner.cli.columns import fold
    from autotuner.config import yaml_documents
    from autotuner.config.schema import default

    lines = [("", f"{row.path} = {yaml_documents.inline(row.value)}"), ("from", _origin(row))]
    if row.path in composition.reasons:
        lines.append(("because", composition.reasons[row.path]))
    earlier = [
        f"{yaml_documents.inline(other.value)}, from {_origin(other)}" for other in _overridden(composition, row)
    ]
    known = default(row.path)
    if row.layer != "default" and known is not None:
        earlier.append(f"{yaml_documents.inline(known)}, the default")
    lines += [("instead of", text) for text in earlier]
    for label, text in lines:
        first, *rest = fold(text, display.out().width - 12)
        display.line(f"{label:12}{first}" if label else first)
        for line in rest:
            display.line(f"{'':12}{line}")


def _overridden(composition: Composition, row: Row) -> list[Row]:
    return composition.overridden.get(row.path, [])


def _plain(composition: Composition, row: Row) -> dict[str, Any]:
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


def _origin(row: Row) -> str:
    """Layer and place of a value."""
    from autotuner.config.catalog import shown_place

    return f"{row.layer}, {shown_place(row.place)}" if row.place else row.layer


def _short(composition: Composition, row: Row) -> str:
    """Layer of a value, in few words."""
    from autotuner.config.merging import CALLER

    kind, *names = row.layer.split(":")
    if kind == "profile":
        return f"profile {names[0]}"
    if row.path in composition.reasons:
        return f"{row.layer}, this machine"
    if row.layer in CALLER:
        place = "--set" if row.place.startswith("--set ") else _origin(row).partition(", ")[2]
        return f"{row.layer}, {place}" if place else row.layer
    return row.layer


def _table(composition: Composition, rows: Sequence[Row]) -> None:
    """One line per value."""
    from autotuner.cli import display
    from autotuner.cli.columns import columns
    from autotuner.config import yaml_documents

    cells = [("value", "is", "from"), *((r.path, yaml_documents.inline(r.value), _short(composition, r)) for r in rows)]
    for line in columns(cells, display.out().width, ((1, 16), (2, 14), (0, 24))):
        display.line(line)
