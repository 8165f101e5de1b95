"""Help page of a command: grouped options with defaults, and examples to paste."""

from __future__ import annotations

import inspect
import math
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
"""Maximum page width in characters; longer lines are hard to read."""

MAX_HELP_COLUMN = 30
"""Rightmost column at which help text starts; longer option names get a line of their own."""

MARGIN = GAP = "  "
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"
MAX_UNBROKEN_DEFAULT = 24
"""Defaults shorter than this are not broken over lines, in characters."""

OTHER_OPTIONS = "Other"
COMMANDS = "Commands"
TUNE, COMPARE, LOAD_TEST, SLA, CONFIGURE, PREDICT, MACHINE = (
    "Tune an engine",
    "Compare runs",
    "Load-test a server",
    "Profile for a planner",
    "Configurations",
    "Predictions",
    "This machine",
)
COMMAND_GROUPS = (COMMANDS, TUNE, COMPARE, LOAD_TEST, SLA, CONFIGURE, PREDICT, MACHINE)
"""Groups of commands in display order."""


class HelpPageMixin:
    """Mixin for Typer's command classes that renders their help with this module."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page for the width of the terminal."""
        formatter.write(render_page(self, ctx, min(MAX_WIDTH, shutil.get_terminal_size().columns)))

    def collect_usage_pieces(self: Any, ctx: Any) -> list[str]:
        """Parts of the usage line after the command's name."""
        commands = ["COMMAND [ARGS]..."] if hasattr(self, "commands") else []
        return [self.options_metavar, *map(argument_usage, arguments(self)), *commands]

    def parse_args(self: Any, ctx: Any, args: list[str]) -> list[str]:
        """Allow an option with a bracketed metavar to be given without a value, which is then empty; refuse NaN."""
        optional_value = [
            parameter for parameter in self.params if not is_argument(parameter) and metavar(parameter).startswith("[")
        ]
        names = {name for parameter in optional_value for name in parameter.opts}
        parsed: list[str] = super().parse_args(ctx, list(_with_empty_values(args, names)))  # type: ignore[misc]
        for parameter in self.params:
            value = ctx.params.get(parameter.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise typer.BadParameter(f"{value} is not a finite number.", ctx=ctx, param=parameter)
        return parsed


class HelpCommand(HelpPageMixin, TyperCommand):
    """A command with this help page."""


class HelpGroup(HelpPageMixin, TyperGroup):
    """A group of commands with this help page."""


def _with_empty_values(args: Sequence[str], optional_value_names: set[str]) -> Iterator[str]:
    for position, argument in enumerate(args):
        following = args[position + 1 : position + 2]
        yield (
            f"{argument}="
            if argument in optional_value_names and (not following or following[0].startswith("-"))
            else argument
        )


# properties of a parameter, for the help page and the reference


def is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def is_flag(parameter: Any) -> bool:
    return bool(getattr(parameter, "is_flag", False))


def option_names(parameter: Any) -> list[str]:
    """Names of an option, short ones first."""
    return sorted(parameter.opts, key=lambda name: name.startswith("--"))


def metavar(parameter: Any) -> str:
    """Placeholder of the value; empty for a flag."""
    if is_flag(parameter):
        return ""
    return str(parameter.metavar or parameter.name.upper().replace("_", "-"))


def default_text(parameter: Any) -> str:
    """Text of the default; empty for flags and required parameters."""
    show_default = getattr(parameter, "show_default", True)
    if is_flag(parameter) or parameter.required:
        return ""
    if isinstance(show_default, str):
        return show_default
    value = parameter.default
    return "" if not show_default or value is None or callable(value) else str(value)


def arguments(command: Any) -> list[Any]:
    """Positional parameters of a command."""
    return [parameter for parameter in command.params if is_argument(parameter)]


def argument_usage(argument: Any) -> str:
    """An argument as the usage line shows it."""
    name = metavar(argument) if argument.required else f"[{metavar(argument)}]"
    return name if argument.nargs == 1 else f"{name}..."


def parameter_groups(command: Any, ctx: Any) -> dict[str, list[Any]]:
    """Visible parameters by group title, in display order, with OTHER_OPTIONS last."""
    groups: dict[str, list[Any]] = {}
    parameters = [parameter for parameter in command.get_params(ctx) if not getattr(parameter, "hidden", False)]
    titles = {id(parameter): _group_title(parameter) for parameter in parameters}
    for title in sorted(
        {*titles.values()}, key=lambda title: (title == OTHER_OPTIONS, list(titles.values()).index(title))
    ):
        groups[title] = [parameter for parameter in parameters if titles[id(parameter)] == title]
    return groups


def _group_title(parameter: Any) -> str:
    return getattr(parameter, "rich_help_panel", None) or ("Arguments" if is_argument(parameter) else OTHER_OPTIONS)


def subcommand_groups(command: Any) -> dict[str, list[Any]]:
    """Visible subcommands by group title, in display order."""
    groups: dict[str, list[Any]] = {title: [] for title in COMMAND_GROUPS}
    for subcommand in getattr(command, "commands", {}).values():
        if not subcommand.hidden:
            groups.setdefault(getattr(subcommand, "rich_help_panel", None) or COMMANDS, []).append(subcommand)
    return {title: commands for title, commands in groups.items() if commands}


def examples_for(ctx: Any) -> Sequence[Example]:
    """Examples of the command of this context."""
    path: list[str] = []
    while ctx.parent is not None:
        path.insert(0, ctx.info_name)
        ctx = ctx.parent
    return EXAMPLES.get(" ".join(path), ())


# the page


@dataclass(frozen=True)
class HelpEntry:
    """A name with its help text."""

    name: str
    text: str


def render_page(command: Any, ctx: Any, width: int) -> str:
    """Render the page; only lines of examples may be longer than `width`, so that they can be pasted."""
    sections = {
        title: [HelpEntry(item.name, next(paragraphs(item), "")) for item in commands]
        for title, commands in subcommand_groups(command).items()
    }
    for title, parameters in parameter_groups(command, ctx).items():
        sections[title] = [HelpEntry(_parameter_label(item), _parameter_text(item)) for item in parameters]
    max_name_width = max(len(entry.name) for entries in sections.values() for entry in entries)
    column = min(MAX_HELP_COLUMN, max_name_width + len(MARGIN) + len(GAP))
    usage = " ".join((ctx.command_path, *command.collect_usage_pieces(ctx)))
    parts = [f"Usage: {usage}", *(textwrap.fill(item, width) for item in paragraphs(command))]
    parts += [_section(title, entries, column, width) for title, entries in sections.items()]
    if examples := examples_for(ctx):
        lines = "\n".join(f"{MARGIN}{item.purpose}:\n{textwrap.indent(item.command, 2 * MARGIN)}" for item in examples)
        parts.append(f"{_bold('Examples')}\n{lines}")
    return "\n\n".join(parts) + "\n"


def paragraphs(command: Any) -> Iterator[str]:
    """Paragraphs of a command's help, each as one line."""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield " ".join(paragraph.split())


def _parameter_label(parameter: Any) -> str:
    if is_argument(parameter):
        return metavar(parameter)
    names = option_names(parameter)
    indent = "    " if names[0].startswith("--") else ""
    return f"{indent}{', '.join(names)} {metavar(parameter)}".rstrip()


def _parameter_text(parameter: Any) -> str:
    default = default_note(parameter)
    if len(default) < MAX_UNBROKEN_DEFAULT:
        default = default.replace(" ", NO_BREAK_SPACE)
    return f"{parameter.help or ''} {default}".rstrip()


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
