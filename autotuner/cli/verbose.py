"""`--verbose`: an option of every command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from autotuner.cli.load_options import OUTPUT


def _show_log(requested: bool) -> None:
    if requested:
        from autotuner.cli import display

        display.show_log()


Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        callback=_show_log,
        is_eager=True,
        rich_help_panel=OUTPUT,
        help="Log each step on stderr: layers, commands, requests, decisions of the search.",
    ),
]


def with_verbose(function: Callable[..., None]) -> Callable[..., None]:
    """Decorator: add `--verbose` to a command, which need not know of it."""
    hints = get_type_hints(function, include_extras=True)
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, parameter in inspect.signature(function).parameters.items()
    ]
    verbose = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Verbose)

    @functools.wraps(function)
    def wrapper(verbose: bool, **values: Any) -> None:
        function(**values)

    wrapper.__signature__ = inspect.Signature([*parameters, verbose])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {**hints, "verbose": Verbose}
    return wrapper
