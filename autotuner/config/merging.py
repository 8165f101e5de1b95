"""Merging: mappings key by key, lists and scalars replace, and every leaf remembers its layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

ATOMIC_SECTIONS = ("parameters", "only_when", "constraints")
"""Sections in which a mapping, such as a range, is one value."""

FREE_KEY_SECTIONS = (*ATOMIC_SECTIONS, "runtime.env", "deployment.headers")
"""Mappings whose keys are the user's own words, so that a dot in one is part of it."""


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `over` on `base`; neither is changed, and the result shares nothing with them."""
    return _merge(base, overlay, "")


def _merge(base: Mapping[str, Any], overlay: Mapping[str, Any], section: str) -> dict[str, Any]:
    merged: dict[str, Any] = {key: copy.deepcopy(value) for key, value in base.items() if key not in overlay}
    for key, value in overlay.items():
        below = base.get(key)
        if isinstance(value, Mapping) and section not in ATOMIC_SECTIONS:
            inner = f"{section}.{key}" if section else key
            merged[key] = _merge(below if isinstance(below, Mapping) else {}, value, inner)
        else:
            merged[key] = copy.deepcopy(value)
    # Keys keep the order in which they first appeared.
    return {key: merged[key] for key in (*base, *(key for key in overlay if key not in base))}


def leaves(data: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted path -> value, for everything that is not a mapping, for empty mappings, and for ranges."""
    return dict(_leaves(data, ""))


def _leaves(data: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping) and value and prefix.removesuffix(".") not in ATOMIC_SECTIONS:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def split_path(path: str) -> tuple[str, ...]:
    """Keys of a dotted path."""
    for free in FREE_KEY_SECTIONS:
        if path.startswith(f"{free}."):
            return (*free.split("."), path[len(free) + 1 :])
    return tuple(path.split("."))


def value_at(data: Mapping[str, Any], path: str) -> Any:
    """Value at a dotted path, or None."""
    value: Any = data
    for key in split_path(path):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def nest(path: str, value: Any) -> dict[str, Any]:
    """Mapping of mappings with `value` at a dotted path."""
    for key in reversed(split_path(path)):
        value = {key: value}
    return dict(value)


CALLER_LAYERS = ("user_patch", "user_replace", "slo_config", "context")
"""Layers of what the caller gave, which users know by the place where they wrote it."""


def origin_text(layer: str, place: str) -> str:
    """A layer with the place of a value in it, in words for an error message."""
    if layer in CALLER_LAYERS:
        return place or "the caller"
    return f"{layer}, {place}" if place else layer


@dataclass
class MergedConfig:
    """A configuration in the making; `provenance` and `places` tell for each leaf its layer and its place.

    `history` has for each leaf the value, layer and place of every layer that set it, in order.
    """

    data: dict[str, Any] = field(default_factory=dict)
    layers: list[str] = field(default_factory=list)
    provenance: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    history: dict[str, list[tuple[Any, str, str]]] = field(default_factory=dict)

    def add(self, name: str, data: Mapping[str, Any], locate: Callable[[str], str] = lambda path: "") -> None:
        """Lay one layer on top; `where` tells the place of a dotted path in the layer's text."""
        self.data = merge(self.data, data)
        self.layers.append(name)
        now = leaves(self.data)
        set_here = leaves(data).keys() & now.keys()
        self.provenance = {path: name if path in set_here else self.provenance[path] for path in now}
        self.places = {path: locate(path) if path in set_here else self.places[path] for path in now}
        for path in set_here:
            self.history.setdefault(path, []).append((copy.deepcopy(now[path]), name, self.places[path]))

    def replace(self, name: str, data: Mapping[str, Any], locate: Callable[[str], str] = lambda path: "") -> None:
        """Drop what all layers so far said, and start again from this one."""
        self.data, self.provenance, self.places = {}, {}, {}
        self.add(name, data, locate)

    def drop(self, path: str, emptied_by: str = "") -> None:
        """Remove a leaf and the mappings this empties; an empty section stays, and is then `emptied_by`'s."""
        *parents, last = split_path(path)
        chain = [self.data]
        for key in parents:
            chain.append(chain[-1][key])
        del chain[-1][last]
        for depth in range(len(chain) - 1, 1, -1):
            if not chain[depth]:
                del chain[depth - 1][parents[depth - 1]]
        now = leaves(self.data)
        owner, place = emptied_by or self.provenance[path], "" if emptied_by else self.places[path]
        self.provenance = {leaf: self.provenance.get(leaf, owner) for leaf in now}
        self.places = {leaf: self.places.get(leaf, place) for leaf in now}

    def origin(self, path: str) -> str:
        """Layer and place that set `path`, or the leaf nearest to it, for an error message."""
        near = [
            leaf
            for leaf in self.provenance
            if leaf == path or leaf.startswith(f"{path}.") or path.startswith(f"{leaf}.")
        ]
        if not near:
            return ""
        return origin_text(self.provenance[near[-1]], self.places[near[-1]])

    def credit(self, path: str, layer: str, place: str) -> None:
        """Let a leaf be of the caller, whose word a layer only repeated."""
        self.provenance[path], self.places[path] = layer, place
        if path in self.history:
            self.history[path][-1] = (self.history[path][-1][0], layer, place)
