"""Expands ranges of values: {from: 0.8, to: 0.95, step: 0.05} or {from: 2048, to: 16384, factor: 2}."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from autotuner.errors import MIN_SIMILARITY, unknown_name_message

RANGE_KEYS = ("from", "to", "step", "factor")
MAX_VALUES = 1_000
EXAMPLES = "{from: 2048, to: 16384, factor: 2} or {from: 0.8, to: 0.95, step: 0.05}"


def key_problem(values: Any) -> str | None:
    """Error message for an unknown key in a parameter's ranges, or None."""
    for item in values if isinstance(values, list) else [values]:
        for key in item if isinstance(item, Mapping) else ():
            if key not in RANGE_KEYS:
                return unknown_name_message("key of a range", key, RANGE_KEYS)
    return None


def json_form(parameter: str, values: Any) -> str | None:
    """How to write a mapping that is no range but an engine flag's own value; None where a range was meant."""
    for item in values if isinstance(values, list) else [values]:
        if isinstance(item, Mapping) and not any(
            difflib.get_close_matches(str(key), RANGE_KEYS, n=1, cutoff=MIN_SIMILARITY) for key in item
        ):
            key = next(iter(item))
            return (
                f"A mapping is a range of numbers; write an engine flag's own mapping as JSON text: "
                f"'{json.dumps(item)}', or one key of it as parameters.{parameter}.{key}."
            )
    return None


def expand_values(values: Any) -> list[Any]:
    """Expand one value, a range, or a list of both into a list of values; ValueError for an invalid range."""
    items = values if isinstance(values, list) else [values]
    expanded: list[Any] = []
    for item in items:
        expanded += _range_numbers(item) if isinstance(item, Mapping) else [item]
    return expanded


def _range_numbers(bounds: Mapping[str, Any]) -> list[int | float]:
    """The numbers of a range, ends included; integers if its bounds are integers, products then rounded."""
    if problem := key_problem(bounds):
        raise ValueError(problem.rstrip("."))
    for key in ("from", "to"):
        if key not in bounds:
            raise ValueError(f"a range needs '{key}'")
    if ("step" in bounds) == ("factor" in bounds):
        raise ValueError("a range needs either 'step' or 'factor'")
    for key, value in bounds.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"'{key}' of a range is a number, not {value!r}")
    is_integer = all(isinstance(value, int) for key, value in bounds.items() if key != "factor")
    exact = {key: Fraction(repr(value)) for key, value in bounds.items()}
    _check_bounds(exact)
    numbers = list(itertools.islice(_steps(exact), MAX_VALUES + 1))
    if len(numbers) > MAX_VALUES:
        raise ValueError(f"a range has more than {MAX_VALUES} values")
    return list(dict.fromkeys(round(number) if is_integer else float(number) for number in numbers))


def _check_bounds(bounds: Mapping[str, Fraction]) -> None:
    """Refuse a range that is empty or infinite."""
    if bounds["from"] > bounds["to"]:
        raise ValueError("'from' of a range is above 'to'")
    if "step" in bounds and bounds["step"] <= 0:
        raise ValueError("'step' of a range must be above 0")
    if "factor" in bounds and (bounds["factor"] <= 1 or bounds["from"] <= 0):
        raise ValueError("'factor' of a range must be above 1, and 'from' above 0")


def _steps(bounds: Mapping[str, Fraction]) -> Iterator[Fraction]:
    number = bounds["from"]
    while number <= bounds["to"]:
        yield number
        number = number + bounds["step"] if "step" in bounds else number * bounds["factor"]
