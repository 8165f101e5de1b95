"""Merges layers: mappings key by key, lists and scalars replace; records the layer that set each leaf."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

ATOMIC_SECTIONS = ("parameters", "only_when", "constraints")
"""Sections in which a mapping, such as a range, is one value and is never merged."""

FREE_KEY_SECTIONS = (*ATOMIC_SECTIONS, "runtime.env", "deployment.headers", "deployment.node_selector")
"""Mappings with arbitrary user-chosen keys: a dot in a key does not separate a path."""


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge of `overlay` over `base`; the result shares no data with either."""
    return _merge(base, overlay, "")


def _merge(base: Mapping[str, Any], overlay: Mapping[str, Any], section: str) -> dict[str, Any]:
    merged: dict[str, Any] = {key: copied(value) for key, value in base.items() if key not in overlay}
    for key, value in overlay.items():
        previous = base.get(key)
        if isinstance(value, Mapping) and section not in ATOMIC_SECTIONS:
            subsection = f"{section}.{key}" if section else key
            merged[key] = _merge(previous if isinstance(previous, Mapping) else {}, value, subsection)
        else:
            merged[key] = copied(value)
    # Keys keep the order in which they first appeared.
    return {key: merged[key] for key in (*base, *(key for key in overlay if key not in base))}


def copied(value: Any) -> Any:
    """A copy of plain data that shares no mapping or list with it."""
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [copied(item) for item in value]
    return value


def leaves(data: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted path -> value, for everything that is not a mapping, for empty mappings and for ranges."""
    return dict(_leaves(data, ""))


def _leaves(data: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping) and value and prefix.removesuffix(".") not in ATOMIC_SECTIONS:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def split_path(path: str) -> tuple[str, ...]:
    """Keys of a dotted path."""
    for section in FREE_KEY_SECTIONS:
        if path.startswith(f"{section}."):
            return (*section.split("."), path[len(section) + 1 :])
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
    """Nested mappings that hold only `value`, at a dotted path."""
    for key in reversed(split_path(path)):
        value = {key: value}
    return dict(value)


CALLER_LAYERS = ("user_patch", "user_replace", "slo_config", "context")
"""Layers that hold what the caller gave; messages name the place instead of the layer."""


def origin_text(layer: str, place: str) -> str:
    """A layer and the place of a value in it, as text for an error message."""
    if layer in CALLER_LAYERS:
        return place or "the caller"
    return f"{layer}, {place}" if place else layer


@dataclass
class MergedConfig:
    """A configuration while layers are merged into it; `provenance` and `places` hold the layer and place of each leaf.

    `history` lists, for each leaf, (value, layer, place) of every layer that set it, in order.
    """

    data: dict[str, Any] = field(default_factory=dict)
    layers: list[str] = field(default_factory=list)
    provenance: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    history: dict[str, list[tuple[Any, str, str]]] = field(default_factory=dict)

    def add(self, name: str, data: Mapping[str, Any], locate: Callable[[str], str] = lambda path: "") -> None:
        """Merge one layer on top; `locate` gives the place of a dotted path in the layer's text."""
        self.data = merge(self.data, data)
        self.layers.append(name)
        merged_leaves = leaves(self.data)
        changed = leaves(data).keys() & merged_leaves.keys()
        self.provenance = {path: name if path in changed else self.provenance[path] for path in merged_leaves}
        self.places = {path: locate(path) if path in changed else self.places[path] for path in merged_leaves}
        for path in changed:
            self.history.setdefault(path, []).append((copied(merged_leaves[path]), name, self.places[path]))

    def replace(self, name: str, data: Mapping[str, Any], locate: Callable[[str], str] = lambda path: "") -> None:
        """Drop all earlier layers' values and start over from this layer."""
        self.data, self.provenance, self.places = {}, {}, {}
        self.add(name, data, locate)

    def drop(self, path: str, emptied_by: str = "") -> None:
        """Remove a leaf and the mappings this empties; an emptied section stays, credited to the layer `emptied_by`."""
        *parents, last = split_path(path)
        chain = [self.data]
        for key in parents:
            chain.append(chain[-1][key])
        del chain[-1][last]
        for depth in range(len(chain) - 1, 1, -1):
            if not chain[depth]:
                del chain[depth - 1][parents[depth - 1]]
        remaining = leaves(self.data)
        owner, place = emptied_by or self.provenance[path], "" if emptied_by else self.places[path]
        self.provenance = {leaf: self.provenance.get(leaf, owner) for leaf in remaining}
        self.places = {leaf: self.places.get(leaf, place) for leaf in remaining}

    def origin(self, path: str) -> str:
        """Text for an error message: layer and place that set `path`, or the nearest leaf."""
        nearby = [
            leaf
            for leaf in self.provenance
            if leaf == path or leaf.startswith(f"{path}.") or path.startswith(f"{leaf}.")
        ]
        if not nearby:
            return ""
        return origin_text(self.provenance[nearby[-1]], self.places[nearby[-1]])

    def credit(self, path: str, layer: str, place: str) -> None:
        """Attribute a leaf to another layer and place than those that set it."""
        self.provenance[path], self.places[path] = layer, place
        if path in self.history:
            self.history[path][-1] = (self.history[path][-1][0], layer, place)
