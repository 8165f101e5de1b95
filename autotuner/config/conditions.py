"""The grammar of `when:`: every key must match, a list matches if any of its items does.

A pattern is a case-insensitive glob, or a comparison such as ">=4" for a number. An unknown
value matches nothing, so `gpu: "*"` means "on a known GPU".
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
    """A parsed condition: (context key, patterns) pairs that must all match."""

    terms: tuple[tuple[str, tuple[str, ...]], ...]

    def __str__(self) -> str:
        return ", ".join(f"{key}: {' or '.join(patterns)}" for key, patterns in self.terms)

    def __call__(self, context: TaskContext) -> bool:
        return all(any(_matches(pattern, context.value(key)) for pattern in patterns) for key, patterns in self.terms)


def parse_condition(data: Any, place: str) -> WhenCondition:
    """Parse the mapping under `when:`; error messages start with `place`."""
    if not isinstance(data, Mapping) or not data:
        raise ConfigError(
            f"{place}: 'when' must be a mapping such as {{runtime: vllm}}.", remedy="See the bundled layers."
        )
    terms = []
    for key, patterns in data.items():
        if key not in CONTEXT_KEYS and key != "profile":
            raise ConfigError(
                f"{place}: {unknown_name_message('key in when', str(key), [*CONTEXT_KEYS, 'profile'])}",
                remedy="Correct the condition.",
            )
        pattern_list = patterns if isinstance(patterns, list) else [patterns]
        if not pattern_list or not all(isinstance(pattern, str | int | float) for pattern in pattern_list):
            raise ConfigError(
                f"{place}: '{key}' in when must be text, a number, or a list of them.", remedy="Correct the condition."
            )
        terms.append((key, tuple(str(pattern) for pattern in pattern_list)))
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
