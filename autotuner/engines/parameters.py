"""The engine-neutral parameter names, and their flag on each engine (parameters.yaml)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from autotuner.core import Value
from autotuner.engines import ENGINES, engine
from autotuner.engines.flags import Flag
from autotuner.errors import ConfigError, unknown_name_message

MAX_SHOWN_INTEGER = 10**300
"""Integers from here on do not fit a float, which a format of few digits takes."""

PARAMETERS_FILE = Path(__file__).with_name("parameters.yaml")


@dataclass(frozen=True)
class EngineParameter:
    """How one engine takes a canonical parameter; the header of parameters.yaml explains each field."""

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
        """Every flag that some value of the parameter sets."""
        arguments = (self.flag, self.switch, *(self.on or ()), *(self.off or ()))
        return tuple(word for word in arguments if word is not None and word.startswith("--"))

    def problem(self, value: Value) -> str | None:
        """What is wrong with a value by `choices`, which only parameters without a flag have; None if it is valid."""
        if not self.choices or value is None or self.native_value(value) in self.choices:
            return None
        return unknown_name_message("value", str(value), map(str, self.choices))

    def native_value(self, value: Value) -> Value:
        """The value in the engine's own words."""
        return (self.values or {}).get(str(value), value)

    def arguments(self, value: Value) -> tuple[str, ...]:
        """The command-line arguments that set `value`; none for None, the engine's default."""
        if value is None:
            return ()
        if self.switch is not None:
            return (self.switch,) if isinstance(value, int) and value > 1 else ()
        if self.flag is not None:
            return (self.flag, to_argument(self.native_value(value)))
        return (self.on if value else self.off) or ()


@dataclass(frozen=True)
class CanonicalParameter:
    """One canonical parameter: its type, its bounds, and how each engine takes it."""

    name: str
    flag: Flag
    exclusive_minimum: float | None
    minimum: float | None
    maximum: float | None
    by_engine: Mapping[str, EngineParameter]

    def problem(self, value: Value) -> str | None:
        """What is wrong with a value on any engine, by type and bounds; None if it is valid."""
        type_problem = self.flag.problem(value)
        if type_problem is not None or not isinstance(value, int | float) or isinstance(value, bool):
            return type_problem
        if self.exclusive_minimum is not None and not value > self.exclusive_minimum:
            return f"must be above {self.exclusive_minimum:g}, not {_shown(value)}"
        if self.minimum is not None and not value >= self.minimum:
            return f"must be at least {self.minimum:g}, not {_shown(value)}"
        if self.maximum is not None and not value <= self.maximum:
            return f"must be at most {self.maximum:g}, not {_shown(value)}"
        return None

    def for_engine(self, engine: str) -> EngineParameter:
        """How `engine` takes the parameter; ConfigError with the reason when it has none."""
        option = self.by_engine.get(engine, EngineParameter(lacks=f"The engine {engine} has no such parameter."))
        if option.lacks is not None:
            raise ConfigError(
                f"Parameter '{self.name}' does not exist on {engine}.",
                why=option.lacks,
                remedy="Take it out of the parameters, or choose another runtime.",
            )
        return option


def _shown(value: float) -> str:
    """A number in a few digits; an integer may have thousands."""
    return f"{value:g}" if isinstance(value, float) or abs(value) < MAX_SHOWN_INTEGER else f"{Decimal(value):.2e}"


def to_argument(value: Value) -> str:
    """The value as one command-line argument: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


@cache
def canonical_parameters() -> Mapping[str, CanonicalParameter]:
    """All canonical parameters by name."""
    import yaml

    rows = yaml.safe_load(PARAMETERS_FILE.read_text())
    return {name: _parse_parameter(name, row) for name, row in rows.items()}


def _parse_parameter(name: str, row: dict[str, Any]) -> CanonicalParameter:
    flag = Flag(name, row.pop("type"))
    above, at_least, at_most = (row.pop(bound, None) for bound in ("above", "at-least", "at-most"))
    by_engine = {
        runtime: EngineParameter(flag=entry) if isinstance(entry, str) else _parse_engine_parameter(entry)
        for runtime, entry in row.items()
    }
    return CanonicalParameter(name, flag, above, at_least, at_most, by_engine)


def _parse_engine_parameter(row: dict[Any, Any]) -> EngineParameter:
    # YAML 1.1 reads the bare keys on and off as true and false
    fields: dict[str, Any] = {{True: "on", False: "off"}.get(key, key): value for key, value in row.items()}
    for key in {"on", "off", "choices"} & fields.keys():
        fields[key] = tuple(fields[key])
    return EngineParameter(**fields)


def check_values(parameters: Mapping[str, Sequence[Value]], origin: Callable[[str], str] = lambda name: "") -> None:
    """Raise ConfigError for a value of a canonical parameter that no engine takes; `origin` says where it was set."""
    for name, values in parameters.items():
        parameter = canonical_parameters().get(name)
        for value in values if parameter else ():
            problem = parameter.problem(value) if parameter else None
            if problem is not None:
                place = origin(name)
                raise ConfigError(
                    f"Parameter '{name}': {problem}",
                    why=f"It comes from {place}." if place else "",
                    remedy="Correct the value in the parameters.",
                )


def is_known_parameter(name: str) -> bool:
    """Whether `name` is a canonical parameter, or a flag in the bundled table of any engine."""
    flags = ("--" + name.replace("_", "-"), "--" + name.replace("-", "_"))
    tables = (engine(runtime).flags() for runtime in ENGINES)
    return name in canonical_parameters() or any(table.find(flag) for table in tables for flag in flags)
