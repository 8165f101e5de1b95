"""Sets of options that several commands share: dataclasses whose fields are annotated with options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints


def with_option_sets(function: Callable[..., None]) -> Callable[..., None]:
    """Decorator: replace each parameter of a command that is a set of options by these options."""
    hints = get_type_hints(function, include_extras=True)
    option_sets: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in option_sets:
            parameters += _parameters(option_sets[name])
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name]))

    @functools.wraps(function)
    def wrapper(**values: Any) -> None:
        arguments = {
            name: option_set(**{field.name: values.pop(field.name) for field in fields(option_set)})
            for name, option_set in option_sets.items()
        }
        function(**arguments, **values)

    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


def _parameters(option_set: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(option_set, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(option_set)
    ]
