"""The grammar of `when:`: every key must match, a list is any of its items.

A pattern is a glob without regard to case, or a comparison such as ">=4" for a number. A fact
that is not known matches nothing, so `gpu: "*"` means "on a known GPU".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from operator import ge, gt, le, lt
from typing import Any

from autotuner.config.context import CONTEXT_KEYS, TaskContext
from autotuner.errors import ConfigError, unknown_name_message

_COMPARISON = re.compile(r"(>=|<=|>|<)\s*(\d+(?:\.\d+)?)")
_OPERATORS = {">=": ge, "<=": le, ">": gt, "<": lt}


@dataclass(frozen=True)
class WhenCondition:
    """A parsed condition: (word, patterns) pairs that must all match."""

    terms: tuple[tuple[str, tuple[str, ...]], ...]

    def __call__(self, context: TaskContext) -> bool:
        """Whether every term matches."""
        return all(any(_matches(pattern, context.value(word)) for pattern in patterns) for word, patterns in self.terms)


def parse_condition(data: Any, place: str) -> WhenCondition:
    """Read the mapping under `when:`; `where` is what an error calls it."""
    if not isinstance(data, Mapping) or not data:
        raise ConfigError(
            f"{place}: 'when' must be a mapping such as {{runtime: vllm}}.", remedy="See the bundled layers."
        )
    terms = []
    for word, patterns in data.items():
        if word not in CONTEXT_KEYS and word != "profile":
            raise ConfigError(
                f"{place}: {unknown_name_message('word in when', str(word), [*CONTEXT_KEYS, 'profile'])}",
                remedy="Correct the condition.",
            )
        options = patterns if isinstance(patterns, list) else [patterns]
        if not options or not all(isinstance(option, str | int | float) for option in options):
            raise ConfigError(
                f"{place}: '{word}' in when must be text, a number, or a list of them.", remedy="Correct the condition."
            )
        terms.append((word, tuple(str(option) for option in options)))
    return WhenCondition(tuple(terms))


def _matches(pattern: str, value: Any) -> bool:
    if value is None:
        return False
    if isinstance(value, list | tuple):
        return any(_matches(pattern, item) for item in value)
    comparison = _COMPARISON.fullmatch(pattern.strip())
    if comparison and isinstance(value, int | float):
        return bool(_OPERATORS[comparison[1]](value, float(comparison[2])))
    return fnmatchcase(str(value).lower(), pattern.lower())
