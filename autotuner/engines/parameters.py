"""The user's names for parameters, and what each is on each engine (parameters.yaml)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from autotuner.core import Value
from autotuner.engines.flags import Flag
from autotuner.errors import ConfigError, unknown

ROWS = Path(__file__).with_name("parameters.yaml")


@dataclass(frozen=True)
class Form:
    """What a parameter is on one engine; the header of parameters.yaml says what each field means."""

    flag: str | None = None
    on: tuple[str, ...] | None = None
    off: tuple[str, ...] | None = None
    switch: str | None = None
    config: str | None = None
    values: Mapping[str, Value] | None = None
    choices: tuple[Value, ...] = ()
    lacks: str | None = None
    reason: str = ""

    @property
    def flags(self) -> tuple[str, ...]:
        """Every flag this form can set."""
        words = (self.flag, self.switch, *(self.on or ()), *(self.off or ()))
        return tuple(word for word in words if word is not None and word.startswith("--"))

    def problem(self, value: Value) -> str | None:
        """What is wrong with a value that has no flag to check it against, or None."""
        if not self.choices or value is None or self.native(value) in self.choices:
            return None
        return unknown("value", str(value), map(str, self.choices))

    def native(self, value: Value) -> Value:
        """The engine's word for a value."""
        return (self.values or {}).get(str(value), value)

    def arguments(self, value: Value) -> tuple[str, ...]:
        """The command-line arguments that set `value`; none for None, the engine's default."""
        if value is None:
            return ()
        if self.switch is not None:
            return (self.switch,) if isinstance(value, int) and value > 1 else ()
        if self.flag is not None:
            return (self.flag, text(self.native(value)))
        return (self.on if value else self.off) or ()


@dataclass(frozen=True)
class Parameter:
    """One canonical parameter: type, bounds, and its form on each engine."""

    name: str
    flag: Flag
    above: float | None
    at_least: float | None
    at_most: float | None
    forms: Mapping[str, Form]

    def problem(self, value: Value) -> str | None:
        """What is wrong with a value on any engine, or None."""
        wrong = self.flag.problem(value)
        if wrong is not None or not isinstance(value, int | float) or isinstance(value, bool):
            return wrong
        if self.above is not None and not value > self.above:
            return f"must be above {self.above:g}, not {value:g}"
        if self.at_least is not None and not value >= self.at_least:
            return f"must be at least {self.at_least:g}, not {value:g}"
        if self.at_most is not None and not value <= self.at_most:
            return f"must be at most {self.at_most:g}, not {value:g}"
        return None

    def form(self, engine: str) -> Form:
        """The parameter on `engine`; ConfigError with the reason when it has none."""
        form = self.forms.get(engine, Form(lacks=f"The engine {engine} has no such parameter."))
        if form.lacks is not None:
            raise ConfigError(
                f"Parameter '{self.name}' does not exist on {engine}.",
                why=form.lacks,
                remedy="Take it out of the parameters, or choose another runtime.",
            )
        return form


def text(value: Value) -> str:
    """A value as one command-line argument."""
    return value if isinstance(value, str) else json.dumps(value)


@cache
def canonical() -> Mapping[str, Parameter]:
    """All canonical parameters by name."""
    import yaml

    rows = yaml.safe_load(ROWS.read_text())
    return {name: _parameter(name, row) for name, row in rows.items()}


def _parameter(name: str, row: dict[str, Any]) -> Parameter:
    flag = Flag(name, row.pop("type"))
    above, at_least, at_most = (row.pop(bound, None) for bound in ("above", "at-least", "at-most"))
    forms = {engine: Form(flag=form) if isinstance(form, str) else _form(form) for engine, form in row.items()}
    return Parameter(name, flag, above, at_least, at_most, forms)


def _form(row: dict[Any, Any]) -> Form:
    # YAML 1.1 reads the bare keys on and off as true and false
    fields: dict[str, Any] = {{True: "on", False: "off"}.get(key, key): value for key, value in row.items()}
    for key in {"on", "off", "choices"} & fields.keys():
        fields[key] = tuple(fields[key])
    return Form(**fields)
