"""The flags an engine takes: names, types, choices, and checks against them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from autotuner.core import Value
from autotuner.errors import ConfigError, unknown_name_message

TABLES_FOLDER = Path(__file__).with_name("flags")

FlagType = Literal["bool", "int", "float", "str", "human-int", "any"]
"""`human-int` also takes 8k or 1M; `any` is a flag whose parser checks the text itself."""

HUMAN_INT_PATTERN = re.compile(r"-?\d+(\.\d+)?[kKmMgGtT]?|auto")


@dataclass(frozen=True)
class Flag:
    """One flag with its other spellings; `choices` is empty where any value goes."""

    name: str
    type: FlagType = "any"
    aliases: tuple[str, ...] = ()
    choices: tuple[Value, ...] = ()
    default: Any = None
    many: bool = False

    @property
    def negation(self) -> str | None:
        """The spelling that turns a switch off."""
        return next((alias for alias in self.aliases if alias.startswith("--no-")), None)

    def problem(self, value: Value) -> str | None:
        """What is wrong with a value, or None; None as a value leaves the engine's default."""
        if value is None:
            return None
        if not self._accepts_type(value):
            return f"takes {_TYPE_NAMES[self.type]}, not {json.dumps(value)}"
        if self.choices and value not in self.choices and str(value) not in map(str, self.choices):
            return unknown_name_message("value", str(value), map(str, self.choices))
        if value is False and self.default is True and self.negation is None:
            return "is on by default, and there is no form that turns it off"
        return None

    def _accepts_type(self, value: Value) -> bool:
        if self.type == "bool" or isinstance(value, bool):
            return self.type == "bool" and isinstance(value, bool)
        if self.type == "int":
            return isinstance(value, int)
        if self.type == "float":
            return isinstance(value, int | float)
        if self.type == "human-int":
            return isinstance(value, int) or (isinstance(value, str) and HUMAN_INT_PATTERN.fullmatch(value) is not None)
        return True


_TYPE_NAMES: Mapping[FlagType, str] = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "human-int": "a whole number such as 8192 or 8k",
    "str": "a text",
    "any": "a text or number",
}


@dataclass(frozen=True)
class FlagTable:
    """All flags of one engine; `origin` says whether they are bundled, documented, or were read from its --help."""

    engine: str
    version: str
    flags: Mapping[str, Flag]
    origin: Literal["bundled", "documentation", "help"] = "bundled"

    @cached_property
    def _by_spelling(self) -> dict[str, Flag]:
        spellings = {alias: flag for flag in self.flags.values() for alias in flag.aliases}
        return spellings | dict(self.flags)

    def find(self, name: str) -> Flag | None:
        """The flag with this spelling, or with a dotted part of it (--config.key)."""
        return self._by_spelling.get(name) or self._by_spelling.get(name.partition(".")[0])

    def require(self, name: str) -> Flag:
        """The flag with this spelling; ConfigError with the nearest one when there is none."""
        found = self.find(name)
        if found is None:
            raise ConfigError(
                unknown_name_message(f"{self.engine} flag", name, self.long_names()), why=f"Checked against {self}."
            )
        return found

    def long_names(self) -> Iterator[str]:
        """Every long spelling."""
        return (name for name in self._by_spelling if name.startswith("--"))

    def __str__(self) -> str:
        source = {"bundled": " as bundled", "documentation": " as documented"}.get(self.origin, "")
        return f"the flags of {self.engine} {self.version}{source}"


def bundled_table(engine: str) -> FlagTable:
    """The table in the package, read from the engine's own parser at the version in its name."""
    path = next(TABLES_FOLDER.glob(f"{engine}-*.json"))
    return from_json(json.loads(path.read_text()))


def from_json(data: Mapping[str, Any]) -> FlagTable:
    """Read what `to_json` wrote."""
    flags = {
        name: Flag(
            name,
            row["type"],
            tuple(row.get("aliases", ())),
            tuple(row.get("choices", ())),
            row.get("default"),
            row.get("many", False),
        )
        for name, row in data["flags"].items()
    }
    return FlagTable(data["engine"], data["version"], flags, data.get("origin", "bundled"))


def to_json(table: FlagTable) -> dict[str, Any]:
    """A table as plain data, without what is empty."""
    rows: dict[str, dict[str, Any]] = {}
    for flag in table.flags.values():
        optional = {"aliases": flag.aliases, "choices": flag.choices, "default": flag.default, "many": flag.many}
        kept = {
            key: value for key, value in optional.items() if value is not None and value != () and value is not False
        }
        rows[flag.name] = {"type": flag.type, **kept}
    return {"engine": table.engine, "version": table.version, "origin": table.origin, "flags": rows}


_OPTION_LINE = re.compile(r"^ {1,4}(?P<names>-{1,2}[A-Za-z][^\s,]*.*)$", re.MULTILINE)
_SPELLING = re.compile(r"(?:^|, )(-{1,2}[A-Za-z][\w.-]*)")
_CHOICES = re.compile(r"\{([^{}]*)\}")


def parse_help(text: str, engine: str, version: str, reference: FlagTable | None = None) -> FlagTable:
    """Read a table from argparse's `--help`; types that help does not tell come from `known`.

    The text must not be wrapped inside an option's own line: ask for it with a large COLUMNS.
    """
    flags = {}
    for match in _OPTION_LINE.finditer(text):
        flag = _parse_option(re.split(r"\s{2,}", match["names"].strip(), maxsplit=1)[0], reference)
        if flag.name not in ("--help", "-h"):
            flags[flag.name] = flag
    return FlagTable(engine, version, flags, "help")


def _parse_option(invocation: str, reference: FlagTable | None) -> Flag:
    bare = _CHOICES.sub("{}", invocation)
    spellings = _SPELLING.findall(bare)
    takes_value = any(" " in part for part in bare.split(", "))
    choices = _CHOICES.search(invocation)
    long = [name for name in spellings if name.startswith("--") and not name.startswith("--no-")]
    first = (long or spellings)[0]
    before = reference.find(first) if reference else None
    name = before.name if before and before.name in spellings else first
    return Flag(
        name,
        _flag_type(takes_value, before),
        tuple(spelling for spelling in spellings if spelling != name),
        tuple(choices[1].split(",")) if choices else (),
        before.default if before else None,
        "..." in bare,
    )


def _flag_type(takes_value: bool, reference: Flag | None) -> FlagType:
    if not takes_value:
        return "bool"
    return reference.type if reference and reference.type != "bool" else "any"


def spellings_in(arguments: Iterable[str]) -> Iterator[str]:
    """The flags among raw arguments, without their values."""
    for argument in arguments:
        if re.match(r"--?[A-Za-z]", argument):
            yield argument.partition("=")[0]
