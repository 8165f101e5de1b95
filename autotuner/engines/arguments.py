"""Command-line arguments as an engine's own parser reads them: which flag each sets, and with which values."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from autotuner.core import Value
from autotuner.engines.flags import Flag, FlagTable
from autotuner.errors import ConfigError, unknown_name_message

REMEDY = "Correct runtime.extra_args."

_FLAG_PATTERN = re.compile(r"--?[A-Za-z]")
_NEGATIVE_NUMBER_PATTERN = re.compile(r"-(\d+|\d*\.\d+)")
_DOTTED_PATTERN = re.compile(r"(?P<flag>-{1,2}[A-Za-z][^.=]*)\.(?P<path>[^=]+)")
_LEVEL_PATTERN = re.compile(r"O?\d")


@dataclass(frozen=True)
class Argument:
    """One flag of a command line: as it was written, the key in it that a dotted form sets, and its values."""

    spelling: str
    flag: Flag
    key: str = ""
    values: tuple[str, ...] = ()
    none_is_default: bool = False

    @cached_property
    def value(self) -> Value:
        """The value in its flag's type: true or false for a switch, None where the engine's default is asked for."""
        if self.flag.type == "bool":
            return self.flag.name.startswith("--no-") or not self.spelling.replace("_", "-").startswith("--no-")
        text = " ".join(self.values)
        if self.key or self.flag.many:
            return text
        is_default = self.none_is_default and self.flag.default is None and text in ("None", "")
        return None if is_default else self.flag.typed_value(text)

    @property
    def problem(self) -> str | None:
        """What is wrong with the values; None if the flag takes them."""
        if self.flag.type == "bool":
            return None
        if self.key:
            return None if self.flag.takes_keys else f"takes {self.flag.type_name}, and has no key '{self.key}'"
        if self.flag.many:
            return None
        return self.flag.problem(self.value) or self.flag.json_problem(self.values[0])


@dataclass(frozen=True)
class ArgumentSyntax:
    """What an engine's parser accepts besides `--flag value`.

    `underscores`: --max_num_seqs is --max-num-seqs. `dotted`: --config.key sets one key of a JSON value.
    `abbreviations`: a prefix that only one flag has stands for it. `joined` is whether -q3 is -q 3.
    `none_is_default`: the text None asks for the default of a flag that has none.
    `level_flag` is the flag that -O3 and -O 3 stand for.
    """

    underscores: bool = False
    dotted: bool = False
    abbreviations: bool = True
    joined: bool = True
    none_is_default: bool = False
    level_flag: str | None = None

    def parse(self, arguments: Sequence[str], table: FlagTable) -> list[Argument]:
        """The flags that the arguments set; ConfigError for what the engine's parser would refuse."""
        parsed: list[Argument] = []
        remaining = list(arguments)
        while remaining:
            word = remaining.pop(0)
            if not _is_flag(word):
                raise _unexpected_word(word, parsed)
            argument = self._argument(word, remaining, table)
            if argument.problem is not None:
                raise ConfigError(f"{argument.spelling} in runtime.extra_args: {argument.problem}", remedy=REMEDY)
            parsed.append(argument)
        return parsed

    def _argument(self, word: str, remaining: list[str], table: FlagTable) -> Argument:
        """The flag of `word`, with the values that it takes from the `remaining` words."""
        spelling, equals, value = word.partition("=")
        if self.level_flag is not None and re.match(r"-O", word):
            return self._level(word, remaining, table, self.level_flag)
        flag, key = self._find(spelling, table)
        if flag is None and self.joined and not word.startswith("--") and (short := table.find(word[:2])) is not None:
            flag, spelling, equals, value = short, word[:2], "=", word[2:]
        if flag is None:
            raise ConfigError(
                unknown_name_message(f"{table.engine} flag", spelling, table.long_names()),
                why=f"Checked against {table}.",
                remedy=REMEDY,
            )
        if flag.type == "bool" and not key:
            if equals:
                raise ConfigError(f"{spelling} is a switch, and takes no value '{value}'.", remedy=REMEDY)
            return Argument(spelling, flag)
        if equals:
            values: tuple[str, ...] = (value,)
        else:
            values = _take_values(spelling, remaining, many=flag.many and not key)
        return Argument(spelling, flag, key, values, self.none_is_default)

    def _find(self, spelling: str, table: FlagTable) -> tuple[Flag | None, str]:
        """The flag of a spelling, and the key that a dotted one sets in its value."""
        key = ""
        if self.dotted and (match := _DOTTED_PATTERN.fullmatch(spelling)):
            spelling, key = match["flag"], match["path"].removesuffix("+")
        if self.underscores and spelling.startswith("--"):
            spelling = spelling.replace("_", "-")
        flag = table.find_exact(spelling)
        if flag is None and self.abbreviations and spelling.startswith("--") and not key:
            flag = table.find_abbreviation(spelling)
        return flag, key

    def _level(self, word: str, remaining: list[str], table: FlagTable, level_flag: str) -> Argument:
        """An optimization level: -O3, -O=3 or -O 3."""
        flag = table.find_exact(level_flag) or table.find_exact("-O")
        if flag is None:
            raise ConfigError(f"Unknown {table.engine} flag '-O'.", why=f"Checked against {table}.", remedy=REMEDY)
        level = word[2:].removeprefix("=") or _take_values("-O", remaining)[0]
        if _LEVEL_PATTERN.fullmatch(level) is None:
            raise ConfigError(f"-O takes an optimization level such as 3, not '{level}'.", remedy=REMEDY)
        return Argument("-O", flag, "", (level,))


def _is_flag(word: str) -> bool:
    """Whether a parser takes the word for a flag; one with a space before any = is text."""
    return _FLAG_PATTERN.match(word) is not None and " " not in word.partition("=")[0]


def _take_values(spelling: str, remaining: list[str], *, many: bool = False) -> tuple[str, ...]:
    """Remove and return the values at the start of `remaining`: one, or with `many` all up to the next flag."""
    values: list[str] = []
    while remaining and (many or not values) and _is_value(remaining[0]):
        values.append(remaining.pop(0))
    if not values:
        raise ConfigError(f"{spelling} in runtime.extra_args needs a value.", remedy=REMEDY)
    return tuple(values)


def _is_value(word: str) -> bool:
    return (
        word == "-" or not word.startswith("-") or " " in word or _NEGATIVE_NUMBER_PATTERN.fullmatch(word) is not None
    )


def _unexpected_word(word: str, parsed: Sequence[Argument]) -> ConfigError:
    """The error for a word that is neither a flag nor a flag's value."""
    if _FLAG_PATTERN.match(word) and " " in word:
        first, _, rest = word.partition(" ")
        return ConfigError(
            f"'{word}' in runtime.extra_args is one argument with a space in it.",
            why="An engine's parser knows no such flag.",
            remedy=f"Write it as two: {json.dumps([first, rest.strip()])}.",
        )
    after = f" after {parsed[-1].spelling}" if parsed else ""
    return ConfigError(
        f"'{word}'{after} in runtime.extra_args is neither a flag nor the value of one.",
        why="The model is the only argument without a flag, and autotune gives it.",
        remedy=REMEDY,
    )
