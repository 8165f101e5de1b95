"""Ranges of values: {from: 0.8, to: 0.95, step: 0.05} adds, {from: 2048, to: 16384, factor: 2} multiplies."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from autotuner.errors import unknown

KEYS = ("from", "to", "step", "factor")
MOST = 1_000
EXAMPLES = "{from: 2048, to: 16384, factor: 2} or {from: 0.8, to: 0.95, step: 0.05}"


def unknown_key(values: Any) -> str | None:
    """What is wrong with the keys of a parameter's ranges, whatever their values; None where nothing is."""
    for item in values if isinstance(values, list) else [values]:
        for key in item if isinstance(item, Mapping) else ():
            if key not in KEYS:
                return unknown("key of a range", key, KEYS)
    return None


def expand(values: Any) -> list[Any]:
    """A parameter's values as a list: one value, a range, or a list of both; ValueError says what is wrong with one."""
    items = values if isinstance(values, list) else [values]
    found: list[Any] = []
    for item in items:
        found += _numbers(item) if isinstance(item, Mapping) else [item]
    return found


def _numbers(asked: Mapping[str, Any]) -> list[int | float]:
    """The numbers of a range, its ends included; whole where they are said in whole numbers, a product then rounded."""
    if problem := unknown_key(asked):
        raise ValueError(problem.rstrip("."))
    for key in ("from", "to"):
        if key not in asked:
            raise ValueError(f"a range needs '{key}'")
    if ("step" in asked) == ("factor" in asked):
        raise ValueError("a range needs either 'step' or 'factor'")
    for key, value in asked.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"'{key}' of a range is a number, not {value!r}")
    whole = all(isinstance(value, int) for key, value in asked.items() if key != "factor")
    exact = {key: Fraction(repr(value)) for key, value in asked.items()}
    _check(exact)
    numbers = list(itertools.islice(_steps(exact), MOST + 1))
    if len(numbers) > MOST:
        raise ValueError(f"a range has more than {MOST} values")
    return list(dict.fromkeys(round(number) if whole else float(number) for number in numbers))


def _check(exact: Mapping[str, Fraction]) -> None:
    """Refuse a range that is empty or never ends."""
    if exact["from"] > exact["to"]:
        raise ValueError("'from' of a range is above 'to'")
    if "step" in exact and exact["step"] <= 0:
        raise ValueError("'step' of a range must be above 0")
    if "factor" in exact and (exact["factor"] <= 1 or exact["from"] <= 0):
        raise ValueError("'factor' of a range must be above 1, and 'from' above 0")


def _steps(exact: Mapping[str, Fraction]) -> Iterator[Fraction]:
    number = exact["from"]
    while number <= exact["to"]:
        yield number
        number = number + exact["step"] if "step" in exact else number * exact["factor"]
