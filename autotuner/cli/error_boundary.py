"""The error boundary of the command line: every error becomes one paragraph and an exit code."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from autotuner.cli.help_page import HelpPageMixin
from autotuner.errors import AutotuneError, machine_fault

EXIT_INTERRUPTED = 130
EXIT_UNEXPECTED = 70
EXIT_OUTPUT = 3
OUTPUT_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


def _name_rejected_value(error: Any) -> None:
    """Add the value to a usage error about it that lacks it: newer versions of Typer say only what is wrong with it."""
    find_errors = getattr(error.__cause__, "errors", None)
    if not callable(find_errors) or not hasattr(error, "message"):
        return
    values = [repr(details["input"]) for details in find_errors() if "input" in details]
    if values and values[0] not in error.message:
        error.message = f"{values[0]}: {error.message}"


def _report(error: AutotuneError, ctx: Any, *, as_json: bool) -> NoReturn:
    """Show an error, with `--debug` its traceback too, and end with its exit code."""
    from autotuner.cli import display

    if ctx.params.get("debug"):
        display.traceback_of(error)
    display.error(error)
    if as_json:
        display.json_error(error.record())
    raise typer.Exit(error.exit_code) from error


class ErrorBoundary(HelpPageMixin, TyperGroup):
    """A command group that reports errors instead of raising them."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command and turn its exceptions into exit codes."""
        from autotuner.cli import display

        wants_json = asks_for_json(ctx.args)
        display.forget_results()
        try:
            result = super().invoke(ctx)
            display.flush_output()
            return result
        except AutotuneError as error:
            _report(error, ctx, as_json=wants_json)
        except KeyboardInterrupt as error:
            display.note("Interrupted.")
            raise typer.Exit(EXIT_INTERRUPTED) from error
        except BrokenPipeError as error:  # `autotune report | head`
            display.discard_output()
            raise typer.Exit(0) from error
        except typer.Exit:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in OUTPUT_ERRNOS and display.is_output_error(error):
                display.discard_output()
                display.note(f"Error: The output cannot be written. {error.strerror}.")
                raise typer.Exit(EXIT_OUTPUT) from error
            if fault := machine_fault(error):
                fault.__cause__ = error
                _report(fault, ctx, as_json=wants_json)
            shows_itself = hasattr(error, "show") and hasattr(error, "exit_code")  # click's own usage errors
            _name_rejected_value(error)
            if shows_itself:
                raise
            if ctx.params.get("debug"):
                display.traceback_of(error)
            display.unexpected_error(error)
            if wants_json:
                message = f"{type(error).__name__}: {error}"
                display.json_error({"class": "internal", "message": message, "exit_code": EXIT_UNEXPECTED})
            raise typer.Exit(EXIT_UNEXPECTED) from error


def asks_for_json(arguments: Sequence[str]) -> bool:
    """Whether a command's arguments ask for its result as JSON."""
    return "--json" in arguments or "--format=json" in arguments or ("--format", "json") in pairwise(arguments)
