"""The flags an engine takes: names, types, choices, and checks against them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from autotuner.core import Value
from autotuner.errors import ConfigError, unknown_name_message

TABLES_FOLDER = Path(__file__).with_name("flags")

FlagType = Literal["bool", "int", "float", "str", "human-int", "any"]
"""`human-int` also accepts 8k or 1M; `any` is a flag whose own parser checks the text."""

HUMAN_INT_PATTERN = re.compile(r"-?\d+(\.\d+)?[kKmMgGtT]?|auto")


@dataclass(frozen=True)
class Flag:
    """One flag and its aliases; `choices` is empty when any value is valid, `many` is true when it takes a list."""

    name: str
    type: FlagType = "any"
    aliases: tuple[str, ...] = ()
    choices: tuple[Value, ...] = ()
    default: Any = None
    many: bool = False

    @property
    def negation(self) -> str | None:
        """The alias that turns a switch off, such as --no-enable-prefix-caching."""
        return next((alias for alias in self.aliases if alias.startswith("--no-")), None)

    @property
    def takes_keys(self) -> bool:
        """Whether the value may be JSON text, one key of which --flag.key sets."""
        return self.type in ("any", "str")

    @property
    def type_name(self) -> str:
        """The type of its values, in words."""
        return _TYPE_NAMES[self.type]

    def typed_value(self, text: str) -> Value:
        """The value that a command line gives as `text`; the text itself where it is no number that the flag takes."""
        for numeric_type in {"int": (int,), "human-int": (int,), "float": (int, float)}.get(self.type, ()):
            with contextlib.suppress(ValueError):
                return numeric_type(text)
        return text

    def problem(self, value: Value) -> str | None:
        """What is wrong with a value; None if it is valid. The value None means the engine's default."""
        if value is None:
            return None
        if not self._accepts_type(value):
            return f"takes {self.type_name}, not {json.dumps(value)}{type_hint(value, self.type)}"
        if self.choices and value not in self.choices and str(value) not in map(str, self.choices):
            return unknown_name_message("value", str(value), map(str, self.choices))
        if value is False and self.default is True and self.negation is None:
            return "is on by default, and there is no form that turns it off"
        return None

    def json_problem(self, text: str) -> str | None:
        """What is wrong with text that looks like JSON, on a flag whose value is JSON; None if it is valid."""
        if self.type != "any" or not text.lstrip().startswith("{") or not _JSON_FLAG_PATTERN.search(self.name):
            return None
        try:
            json.loads(text)
        except ValueError as error:
            return f"takes JSON text, and this is not: {error}"
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


def whole_number(value: Value) -> int | None:
    """The number that a flag of type human-int takes from a value; None for one such as auto, or below 1."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT])", value)):
        base = 1000 if match[2].islower() else 1024
        return int(float(match[1]) * base ** (1 + "kmgt".index(match[2].lower())))
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def type_hint(value: Value, type_: FlagType) -> str:
    """What to write instead of a value that is not of the type, as `: write 1`; empty where that is not plain."""
    if type_ == "bool":
        text = str(value).lower()
        meant = (
            "true" if text in ("true", "yes", "on", "1") else "false" if text in ("false", "no", "off", "0") else None
        )
        replacement = meant and f"{meant} without quotes"
    elif isinstance(value, bool):
        is_text = type_ in ("str", "any")
        return ": quote it, as YAML reads on, off, yes and no as booleans" if is_text else ""
    elif type_ not in ("int", "human-int", "float"):
        return ""
    else:
        replacement = _as_number(value, type_)
    return f": write {replacement}" if replacement else ""


_BOOLEAN_WORDS = {
    **dict.fromkeys(("true", "yes", "on", "1"), "true without quotes"),
    **dict.fromkeys(("false", "no", "off", "0"), "false without quotes"),
}


def _as_number(value: Value, type_: FlagType) -> str | None:
    """The number that a value of another type stands for, as it is written; None if it stands for none."""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 2**53 else None
    text = str(value).strip()
    if type_ == "float" and (match := re.fullmatch(r"(\d+(\.\d+)?)\s*%", text)):
        return f"{float(match[1]) / 100:g}"
    if match := re.fullmatch(r"(\d+)\s*([kKmM])", text):
        decimal, binary = {"k": (10**3, 2**10), "m": (10**6, 2**20)}[match[2].lower()]
        return f"{int(match[1]) * decimal}, or {int(match[1]) * binary} for multiples of {binary}"
    number_pattern = r"[-+]?\d+" if type_ != "float" else r"[-+]?(\d+\.?\d*|\.\d+)"
    return f"{text} without quotes" if re.fullmatch(number_pattern, text) else None


_JSON_FLAG_PATTERN = re.compile(r"-(config|kwargs|overrides|per-prompt)$")
"""Names of the flags of type `any` whose value is JSON; others may begin with a brace, such as a chat template."""

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
    """All flags of one engine; `origin` is the bundled table, the engine's documentation, or its --help."""

    engine: str
    version: str
    flags: Mapping[str, Flag]
    origin: Literal["bundled", "documentation", "help"] = "bundled"

    @cached_property
    def _by_spelling(self) -> dict[str, Flag]:
        spellings = {alias: flag for flag in self.flags.values() for alias in flag.aliases}
        return spellings | dict(self.flags)

    def find(self, name: str) -> Flag | None:
        """The flag with this name or alias, or the one before the dot of --config.key; None if there is none."""
        return self._by_spelling.get(name) or self._by_spelling.get(name.partition(".")[0])

    def find_exact(self, name: str) -> Flag | None:
        """The flag with exactly this name or alias; None if there is none."""
        return self._by_spelling.get(name)

    def find_abbreviation(self, prefix: str) -> Flag | None:
        """The flag that alone has a name or alias with this prefix; None if there is none, or several."""
        spellings = [name for name in self._by_spelling if name.startswith(prefix)]
        return self._by_spelling[spellings[0]] if len(spellings) == 1 else None

    def require(self, name: str) -> Flag:
        """The flag with this name or alias; ConfigError with the nearest name when there is none."""
        flag = self.find(name)
        if flag is None:
            raise ConfigError(
                unknown_name_message(f"{self.engine} flag", name, self.long_names()), why=f"Checked against {self}."
            )
        return flag

    def long_names(self) -> Iterator[str]:
        """Every name and alias that starts with two dashes."""
        return (name for name in self._by_spelling if name.startswith("--"))

    def __str__(self) -> str:
        source = {"bundled": " as bundled", "documentation": " as documented"}.get(self.origin, "")
        return f"the flags of {self.engine} {self.version}{source}"


def bundled_table(engine: str) -> FlagTable:
    """The flag table in the package, extracted from the engine's own parser at the version in its file name."""
    path = next(TABLES_FOLDER.glob(f"{engine}-*.json"))
    return from_json(json.loads(path.read_text()))


def from_json(data: Mapping[str, Any]) -> FlagTable:
    """The table that `to_json` wrote."""
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
    """The table as plain data, without empty fields."""
    rows: dict[str, dict[str, Any]] = {}
    for flag in table.flags.values():
        optional = {"aliases": flag.aliases, "choices": flag.choices, "default": flag.default, "many": flag.many}
        nonempty = {
            key: value for key, value in optional.items() if value is not None and value != () and value is not False
        }
        rows[flag.name] = {"type": flag.type, **nonempty}
    return {"engine": table.engine, "version": table.version, "origin": table.origin, "flags": rows}


_OPTION_LINE = re.compile(r"^ {1,4}(?P<names>-{1,2}[A-Za-z][^\s,]*.*)$", re.MULTILINE)
_SPELLING = re.compile(r"(?:^|, )(-{1,2}[A-Za-z][\w.-]*)")
_CHOICES = re.compile(r"\{([^{}]*)\}")


def parse_help(text: str, engine: str, version: str, reference: FlagTable | None = None) -> FlagTable:
    """Parse the output of argparse's --help; types, which help does not show, come from the `reference` table.

    An option's names and choices must be on one line: set a large COLUMNS for the command.
    """
    flags = {}
    for match in _OPTION_LINE.finditer(text):
        flag = _parse_option(re.split(r"\s{2,}", match["names"].strip(), maxsplit=1)[0], reference)
        if flag.name not in ("--help", "-h"):
            flags[flag.name] = flag
    return FlagTable(engine, version, flags, "help")


def _parse_option(invocation: str, reference: FlagTable | None) -> Flag:
    """The flag of an option line of --help without its description, such as `-tp N, --tp-size N`."""
    bare = _CHOICES.sub("{}", invocation)
    spellings = _SPELLING.findall(bare)
    takes_value = any(" " in part for part in bare.split(", "))
    choices = _CHOICES.search(invocation)
    long_names = [name for name in spellings if name.startswith("--") and not name.startswith("--no-")]
    first = (long_names or spellings)[0]
    reference_flag = reference.find(first) if reference else None
    name = reference_flag.name if reference_flag and reference_flag.name in spellings else first
    return Flag(
        name,
        _flag_type(takes_value, reference_flag),
        tuple(spelling for spelling in spellings if spelling != name),
        tuple(filter(None, choices[1].split(","))) if choices else (),
        reference_flag.default if reference_flag else None,
        "..." in bare,
    )


def _flag_type(takes_value: bool, reference: Flag | None) -> FlagType:
    if not takes_value:
        return "bool"
    return reference.type if reference and reference.type != "bool" else "any"
