"""The help page of a command: options in groups with their defaults, and examples that can be pasted."""

from __future__ import annotations

import inspect
import os
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from autotuner.cli.examples import EXAMPLES, Example

MAX_WIDTH = 100
"""Columns of a page on a wider terminal; longer lines are hard to read."""

MAX_HELP_COLUMN = 30
"""Where help begins at the latest; longer names of options stand on a line of their own."""

MARGIN = GAP = "  "
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"
MAX_UNBROKEN_DEFAULT = 24
"""Characters of a default that is kept on one line."""

OTHER_OPTIONS = "Other"
COMMANDS = "Commands"
TUNE, LOAD_TEST, CONFIGURE, PREDICT, MACHINE = (
    "Tune an engine",
    "Load-test a server",
    "Configurations",
    "Predictions",
    "This machine",
)
COMMAND_GROUPS = (COMMANDS, TUNE, LOAD_TEST, CONFIGURE, PREDICT, MACHINE)
"""In the order in which they are shown."""


class HelpPageMixin:
    """What a command needs to show its help like this; for a class of Typer's own."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page for the width of the terminal."""
        formatter.write(render_page(self, ctx, min(MAX_WIDTH, shutil.get_terminal_size().columns)))

    def collect_usage_pieces(self: Any, ctx: Any) -> list[str]:
        """What follows the command's name in the usage line."""
        commands = ["COMMAND [ARGS]..."] if hasattr(self, "commands") else []
        return [self.options_metavar, *map(argument_usage, arguments(self)), *commands]

    def parse_args(self: Any, ctx: Any, args: list[str]) -> list[str]:
        """Let an option whose metavar is in brackets stand without its value, which is empty then."""
        optional = [each for each in self.params if not is_argument(each) and metavar(each).startswith("[")]
        alone = {name for each in optional for name in each.opts}
        parsed: list[str] = super().parse_args(ctx, list(_with_empty_values(args, alone)))  # type: ignore[misc]
        return parsed


class HelpCommand(HelpPageMixin, TyperCommand):
    """A command with such a page."""


class HelpGroup(HelpPageMixin, TyperGroup):
    """A group of commands with such a page."""


def _with_empty_values(args: Sequence[str], optional_value_names: set[str]) -> Iterator[str]:
    for position, word in enumerate(args):
        following = args[position + 1 : position + 2]
        yield f"{word}=" if word in optional_value_names and (not following or following[0].startswith("-")) else word


# what a parameter says of itself, for the page and for the reference


def is_argument(parameter: Any) -> bool:
    """Whether it is given by its place."""
    return bool(parameter.param_type_name == "argument")


def is_flag(parameter: Any) -> bool:
    """Whether it takes no value."""
    return bool(getattr(parameter, "is_flag", False))


def option_names(parameter: Any) -> list[str]:
    """The names of an option, the short one first."""
    return sorted(parameter.opts, key=lambda name: name.startswith("--"))


def metavar(parameter: Any) -> str:
    """What stands for the value; empty for a flag."""
    if is_flag(parameter):
        return ""
    return str(parameter.metavar or parameter.name.upper().replace("_", "-"))


def default_text(parameter: Any) -> str:
    """What holds where it is not given; empty for a flag, and for what must be given."""
    shown = getattr(parameter, "show_default", True)
    if is_flag(parameter) or parameter.required:
        return ""
    if isinstance(shown, str):
        return shown
    value = parameter.default
    return "" if not shown or value is None or callable(value) else str(value)


def arguments(command: Any) -> list[Any]:
    """The parameters given by place."""
    return [parameter for parameter in command.params if is_argument(parameter)]


def argument_usage(argument: Any) -> str:
    """An argument in the usage line."""
    name = metavar(argument) if argument.required else f"[{metavar(argument)}]"
    return name if argument.nargs == 1 else f"{name}..."


def parameter_groups(command: Any, ctx: Any) -> dict[str, list[Any]]:
    """The parameters that are shown, by the title of their group, in order; help comes last."""
    found: dict[str, list[Any]] = {}
    every = [each for each in command.get_params(ctx) if not getattr(each, "hidden", False)]
    titles = {id(each): _group_title(each) for each in every}
    for title in sorted(
        {*titles.values()}, key=lambda title: (title == OTHER_OPTIONS, list(titles.values()).index(title))
    ):
        found[title] = [each for each in every if titles[id(each)] == title]
    return found


def _group_title(parameter: Any) -> str:
    return getattr(parameter, "rich_help_panel", None) or ("Arguments" if is_argument(parameter) else OTHER_OPTIONS)


def subcommand_groups(command: Any) -> dict[str, list[Any]]:
    """The subcommands of a command, by the title of their group, in order."""
    found: dict[str, list[Any]] = {title: [] for title in COMMAND_GROUPS}
    for each in getattr(command, "commands", {}).values():
        if not each.hidden:
            found.setdefault(getattr(each, "rich_help_panel", None) or COMMANDS, []).append(each)
    return {title: commands for title, commands in found.items() if commands}


def examples_for(ctx: Any) -> Sequence[Example]:
    """The examples of the command that is being helped with."""
    path: list[str] = []
    while ctx.parent is not None:
        path.insert(0, ctx.info_name)
        ctx = ctx.parent
    return EXAMPLES.get(" ".join(path), ())


# the page


@dataclass(frozen=True)
class HelpEntry:
    """A name with what is said of it."""

    name: str
    text: str


def render_page(command: Any, ctx: Any, width: int) -> str:
    """The whole page, no line longer than `width` but those of examples, which are to be pasted."""
    sections = {
        title: [HelpEntry(each.name, next(paragraphs(each), "")) for each in commands]
        for title, commands in subcommand_groups(command).items()
    }
    for title, parameters in parameter_groups(command, ctx).items():
        sections[title] = [HelpEntry(_parameter_label(each), _parameter_text(each)) for each in parameters]
    longest = max(len(entry.name) for entries in sections.values() for entry in entries)
    column = min(MAX_HELP_COLUMN, longest + len(MARGIN) + len(GAP))
    usage = " ".join((ctx.command_path, *command.collect_usage_pieces(ctx)))
    parts = [f"Usage: {usage}", *(textwrap.fill(each, width) for each in paragraphs(command))]
    parts += [_section(title, entries, column, width) for title, entries in sections.items()]
    if shown := examples_for(ctx):
        lines = "\n".join(f"{MARGIN}{each.purpose}:\n{textwrap.indent(each.command, 2 * MARGIN)}" for each in shown)
        parts.append(f"{_bold('Examples')}\n{lines}")
    return "\n\n".join(parts) + "\n"


def paragraphs(command: Any) -> Iterator[str]:
    """The paragraphs of a command's help, each on one line."""
    for each in inspect.cleandoc(command.help or "").split("\n\n"):
        yield " ".join(each.split())


def _parameter_label(parameter: Any) -> str:
    if is_argument(parameter):
        return metavar(parameter)
    listed = option_names(parameter)
    indent = "    " if listed[0].startswith("--") else ""
    return f"{indent}{', '.join(listed)} {metavar(parameter)}".rstrip()


def _parameter_text(parameter: Any) -> str:
    note = default_note(parameter)
    return f"{parameter.help or ''} {note.replace(' ', NO_BREAK_SPACE) if len(note) < MAX_UNBROKEN_DEFAULT else note}".rstrip()


def default_note(parameter: Any) -> str:
    """`[default: 20]`, `[required]`, or nothing for a flag."""
    value = default_text(parameter)
    return f"[default: {value}]" if value else "[required]" if parameter.required else ""


def _section(title: str, entries: Sequence[HelpEntry], column: int, width: int) -> str:
    lines = [_bold(title)]
    for entry in entries:
        wrapped = textwrap.wrap(entry.text, width - column, break_long_words=False, break_on_hyphens=False)
        text = [line.replace(NO_BREAK_SPACE, " ") for line in wrapped]
        name = f"{MARGIN}{entry.name}"
        if len(name) + len(GAP) > column:
            lines.append(_coloured(name))
        else:
            first = text.pop(0) if text else ""
            lines.append(f"{_coloured(name)}{' ' * (column - len(name))}{first}".rstrip())
        lines += [" " * column + line for line in text]
    return "\n".join(lines)


def _bold(text: str) -> str:
    return text if os.environ.get("NO_COLOR") else typer.style(text, bold=True)


def _coloured(text: str) -> str:
    return text if os.environ.get("NO_COLOR") else typer.style(text, fg=typer.colors.CYAN)
