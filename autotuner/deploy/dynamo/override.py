"""Overrides of a DynamoGraphDeployment, as a request gives them: merged by key, and by name in lists of named items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotuner.errors import ConfigError

_SHAPES = {"services": "v1alpha1", "components": "v1beta1"}


def apply_override(graph: dict[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """The deployment with the override; ConfigError for one of another version, or that names no component.

    Lists whose items have a `name` are merged item by item; arguments replace the flags they repeat and
    come after the others; any other list is replaced.
    """
    if not override:
        return graph
    version = graph["apiVersion"].rpartition("/")[2]
    given = str(override.get("apiVersion", "")).rpartition("/")[2]
    spec = override.get("spec") or {}
    shape = next((_SHAPES[key] for key in _SHAPES if key in spec), version)
    if (given or shape) != version or shape != version:
        raise ConfigError(
            f"The override is written for {given or shape}, and the deployment is {version}.",
            remedy=f"Write the deployment in {given or shape}, or the override for {version}.",
        )
    for key in ("services", "components"):
        names = {_name(item) for item in spec.get(key, ())}
        existing_names = {_name(item) for item in graph["spec"].get(key, ())}
        if names - existing_names:
            raise ConfigError(
                f"The override names {', '.join(sorted(names - existing_names))}, which the deployment does not have.",
                why=f"It has {', '.join(sorted(existing_names))}.",
                remedy="Correct the names.",
            )
    merged = _merge(graph, {key: value for key, value in override.items() if key not in ("apiVersion", "kind")})
    result: dict[str, Any] = merged
    return result


def _name(item: Any) -> str:
    return str(item["name"] if isinstance(item, Mapping) else item)


def _merge(base: Any, change: Any, key: str = "") -> Any:
    if isinstance(base, Mapping) and isinstance(change, Mapping):
        return {**base, **{name: _merge(base.get(name), value, name) for name, value in change.items()}}
    if isinstance(base, list) and isinstance(change, list):
        if key == "args":
            return _merge_arguments(base, change)
        if all(isinstance(item, Mapping) and "name" in item for item in (*base, *change)):
            changes = {item["name"]: item for item in change}
            merged = [_merge(item, changes.pop(item["name"], {})) for item in base]
            return [*merged, *changes.values()]
    return change


def _merge_arguments(base: Sequence[str], change: Sequence[str]) -> list[str]:
    """The arguments with those flags replaced that the change repeats, and the change at the end."""
    replaced = {word.partition("=")[0] for word in change if word.startswith("--")}
    kept, skipping = [], False
    for word in base:
        if word.startswith("--"):
            skipping = word.partition("=")[0] in replaced
        if not skipping:
            kept.append(word)
    return [*kept, *change]
