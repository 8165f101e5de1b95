"""Write docs/reference/cli.md from the commands themselves; `--check` fails when it is out of date."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from autotuner.cli import app, help_page

PAGE = Path(__file__).parent / "reference" / "cli.md"
INTRODUCTION = """# Command line reference

Generated from the commands by `python docs/make_cli_reference.py`; a test checks that it is current. `autotune COMMAND
--help` prints the same.

Exit codes: 0 success; 1 the verdict is a failure by [`--fail-on`](../how-to/ci.md), such as no result that meets the
targets; 2 bad usage or configuration; 3 the machine lacks something, a server does not answer, or a run folder cannot
be used; 70 a defect of autotune; 130 interrupted, can be resumed.
"""


def walk_commands(command: Any, path: str, parent: Any = None) -> Iterator[tuple[Any, Any]]:
    """Yield every command with its context, groups first."""
    context = command.make_context(path, [], parent=parent, resilient_parsing=True)
    yield command, context
    for name, sub in getattr(command, "commands", {}).items():
        yield from walk_commands(sub, name, context)


def option_cell(parameter: Any) -> str:
    """Table cell of a parameter: its names and the placeholder of its value."""
    value = help_page.metavar(parameter)
    if help_page.is_argument(parameter):
        return f"`{_escape(value)}`"
    *others, last = help_page.option_names(parameter)
    return _escape(", ".join(f"`{name}`" for name in [*others, f"{last} {value}".rstrip()]))


def option_row(parameter: Any) -> str:
    """Table row of a parameter: names, meaning, default."""
    default = "off" if help_page.is_flag(parameter) else help_page.default_text(parameter)
    default = "required" if parameter.required else default
    return f"| {option_cell(parameter)} | {_escape(parameter.help or '')} | {_escape(default)} |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def command_section(command: Any, context: Any) -> str:
    """Section of a command: purpose, usage, grouped options, examples."""
    usage = " ".join((context.command_path, *command.collect_usage_pieces(context)))
    parts = [f"## {context.command_path}", *help_page.paragraphs(command), f"```text\n{usage}\n```"]
    for title, listed in help_page.subcommand_groups(command).items():
        rows = (f"- `{item.name}`: {next(help_page.paragraphs(item))}" for item in listed)
        parts.append(f"**{title}**\n\n" + "\n".join(rows))
    for title, listed in help_page.parameter_groups(command, context).items():
        rows = (option_row(item) for item in listed if "--help" not in item.opts)
        if table_rows := "\n".join(rows):
            parts.append(f"**{title}**\n\n| option | meaning | default |\n| --- | --- | --- |\n{table_rows}")
    if examples := help_page.examples_for(context):
        parts.append("```text\n" + "\n".join(f"# {item.purpose}\n{item.command}" for item in examples) + "\n```")
    return "\n\n".join(parts)


def reference_page() -> str:
    sections = (command_section(*entry) for entry in walk_commands(typer.main.get_command(app), "autotune"))
    return "\n".join([INTRODUCTION, *(f"{section}\n" for section in sections)])


def main() -> None:
    """Write the page, or check that it is current."""
    text = reference_page()
    if "--check" in sys.argv:
        if not PAGE.exists() or PAGE.read_text() != text:
            raise SystemExit(f"{PAGE} is out of date: run python docs/make_cli_reference.py")
    else:
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
