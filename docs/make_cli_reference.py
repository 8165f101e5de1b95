"""Write docs/reference/cli.md from the commands themselves; `--check` fails when it is out of date."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from autotuner.cli import app

TARGET = Path(__file__).parent / "reference" / "cli.md"
HEAD = """# Command line reference

Made from the commands by `python docs/make_cli_reference.py`; a test holds it current.

Exit codes: 0 done; 1 no configuration met the targets; 2 bad usage or configuration; 3 the machine lacks
something, or a run folder cannot be used; 130 interrupted, can be resumed.
"""


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command with its full name, groups first."""
    yield path, command
    for name, sub in getattr(command, "commands", {}).items():
        yield from commands(sub, f"{path} {name}")


def options(command: Any) -> list[str]:
    """The rows of a command's table of arguments and options."""
    rows = []
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        if parameter.param_type_name == "argument":
            flags = f"`{parameter.name.upper()}`"
        else:
            flags = ", ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts))
        default = parameter.default
        shown = "" if default is None or default is False or callable(default) or default == () else f"`{default}`"
        rows.append(f"| {flags} | {parameter.help or ''} | {shown} |")
    return rows


def described(text: str) -> str:
    """A command's help; a paragraph whose lines are kept becomes a block of text."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(
        f"```text\n{body.strip(chr(8)).strip(chr(10))}\n```" if body.startswith("\b") else body for body in paragraphs
    )


def reference() -> str:
    """The whole page."""
    parts = [HEAD]
    for path, command in commands(typer.main.get_command(app), "autotune"):
        usage = " ".join(part for part in (path, "COMMAND" if hasattr(command, "commands") else "[OPTIONS]"))
        arguments = " ".join(
            p.name.upper() if p.required else f"[{p.name.upper()}]"
            for p in command.params
            if p.param_type_name == "argument"
        )
        parts.append(
            f"## {path}\n\n{described(command.help or '')}\n\n```text\n{f'{usage} {arguments}'.rstrip()}\n```\n"
        )
        rows = options(command)
        if rows:
            parts.append("| option | meaning | default |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def main() -> None:
    """Write the page, or check it."""
    text = reference()
    if "--check" in sys.argv:
        if not TARGET.exists() or TARGET.read_text() != text:
            raise SystemExit(f"{TARGET} is out of date: run python docs/make_cli_reference.py")
    else:
        TARGET.write_text(text)


if __name__ == "__main__":
    main()
