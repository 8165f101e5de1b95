"""Layers, and the files they come from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autotuner.config import conditions, yaml_documents
from autotuner.config.context import WORDS, TaskContext
from autotuner.config.merging import merge, split
from autotuner.config.yaml_documents import Document, KeyPath
from autotuner.errors import ConfigError, unknown

Data = Mapping[str, Any] | Callable[[TaskContext], Mapping[str, Any]]
Condition = Callable[[TaskContext], bool]

METADATA = ("description", "use_case", "tags", "recommended_for")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class ConfigLayer:
    """A named part of a configuration: data, or a function of the context, that applies where `condition` holds."""

    name: str
    data: Data = field(default_factory=dict)
    condition: Condition | None = None

    def applies(self, context: TaskContext) -> bool:
        """Whether this layer has a say in this context."""
        return self.condition is None or self.condition(context)

    def resolve(self, context: TaskContext) -> dict[str, Any]:
        """Return the layer's data in this context, as JSON-ready data of its own."""
        data = self.data(context) if callable(self.data) else self.data
        if not isinstance(data, Mapping):
            raise ConfigError(
                f"Layer '{self.name}' gave a {type(data).__name__}, not a mapping.", remedy="Return a dict."
            )
        copied: dict[str, Any] = yaml_documents.plain(data, "")
        return copied

    def assumed(self, word: str) -> Any:
        """Value of a word for when nothing else tells it, or None."""
        return None

    def where(self, path: str) -> str:
        """Place of a dotted path in the text this layer was read from; empty for one made in Python."""
        return ""

    def describe(self) -> dict[str, Any]:
        """The layer as data: its name, its data without a context, and what it depends on."""
        return {"name": self.name, "data": dict(self.data(TaskContext()) if callable(self.data) else self.data)}


@dataclass(frozen=True)
class Case:
    """Data that counts where a condition holds."""

    condition: Condition
    data: Mapping[str, Any]
    at: KeyPath


@dataclass(frozen=True)
class FileLayer(ConfigLayer):
    """A layer of a YAML file: its data, then the first case that matches, with placeholders filled in."""

    cases: tuple[Case, ...] = ()
    assume: Mapping[str, Any] = field(default_factory=dict)
    document: Document = field(default_factory=lambda: Document({}, ""))
    at: KeyPath = ()

    def resolve(self, context: TaskContext) -> dict[str, Any]:
        """Return the layer's data in this context, as JSON-ready data of its own."""
        data = super().resolve(context)
        for case in self.cases:
            if case.condition(context):
                data = merge(data, case.data)
                break
        filled: dict[str, Any] = _fill(data, context, self.document.source)
        return filled

    def describe(self) -> dict[str, Any]:
        """The layer as it is written: name, `when`, `assume`, data, and cases."""
        entry = self.document.data
        for key in self.at:
            entry = entry[key]
        return {"name": self.name, **{key: entry[key] for key in ("when", "assume", "data", "cases") if key in entry}}

    def parts(self) -> list[Mapping[str, Any]]:
        """Return the data and that of every case, as written."""
        return [self.data if isinstance(self.data, Mapping) else {}, *(case.data for case in self.cases)]

    def assumed(self, word: str) -> Any:
        """Value of a word for when nothing else tells it, or None."""
        return self.assume.get(word)

    def where(self, path: str) -> str:
        """Place of a dotted path in the file."""
        keys = split(path)
        for at in ((*self.at, "data"), *(case.at for case in self.cases)):
            if (*at, *keys) in self.document.places:
                return self.document.where((*at, *keys))
        return self.document.where((*self.at, "data", *keys))


@dataclass(frozen=True)
class Profile:
    """Named layers that are applied together, and what they are for. `source` is a file, or "registered"."""

    name: str
    layers: tuple[ConfigLayer, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str = "registered"

    def describe(self) -> dict[str, Any]:
        """Metadata, with the count and names of the layers."""
        return {
            "name": self.name,
            "description": self.metadata.get("description", ""),
            "use_case": self.metadata.get("use_case", ""),
            "tags": list(self.metadata.get("tags", ())),
            "recommended_for": list(self.metadata.get("recommended_for", ())),
            "layers_count": len(self.layers),
            "layer_names": [layer.name for layer in self.layers],
            "source": self.source,
        }

    def named(self, prefix: str) -> tuple[ConfigLayer, ...]:
        """Return the layers under names that tell where they come from."""
        return tuple(replace(layer, name=f"{prefix}{layer.name}") for layer in self.layers)


def load(path: Path) -> Profile:
    """Read one layer file: metadata and `layers:`, each with name, when, assume, data and cases."""
    document = yaml_documents.read(path)
    content = yaml_documents.mapping(document)
    _known_keys(document, (), content, ("name", *METADATA, "layers"))
    name = content.get("name", path.stem)
    if not isinstance(name, str) or not name:
        raise _fault(document, ("name",), "'name' must be text.")
    for key in ("description", "use_case"):
        if not isinstance(content.get(key, ""), str):
            raise _fault(document, (key,), f"'{key}' must be text.")
    for key in ("tags", "recommended_for"):
        values = content.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise _fault(document, (key,), f"'{key}' must be a list of words.")
    entries = content.get("layers")
    if not isinstance(entries, list) or not entries:
        raise _fault(document, ("layers",), "'layers' must be a list of at least one layer.")
    layers = tuple(_layer(document, ("layers", index), entry) for index, entry in enumerate(entries))
    return Profile(name, layers, {key: content[key] for key in METADATA if key in content}, document.source)


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Refuse metadata of a registered profile with keys that no listing would show."""
    for key in metadata:
        if key not in ("name", *METADATA):
            raise ConfigError(unknown("metadata key", key, ("name", *METADATA)), remedy="Correct the key.")


def _layer(document: Document, at: KeyPath, entry: Any) -> FileLayer:
    if not isinstance(entry, dict):
        raise _fault(document, at, "a layer must be a mapping with 'name' and 'data'.")
    _known_keys(document, at, entry, ("name", "when", "assume", "data", "cases"))
    if not isinstance(entry.get("name"), str) or not entry["name"]:
        raise _fault(document, at, "a layer needs a 'name'.")
    if "data" not in entry and "cases" not in entry:
        raise _fault(document, at, f"layer '{entry['name']}' has neither 'data' nor 'cases'.")
    assume = entry.get("assume", {})
    if not isinstance(assume, dict):
        raise _fault(document, (*at, "assume"), "'assume' must be a mapping.")
    _known_keys(document, (*at, "assume"), assume, tuple(WORDS))
    cases = entry.get("cases", [])
    if not isinstance(cases, list):
        raise _fault(document, (*at, "cases"), "'cases' must be a list.")
    return FileLayer(
        name=entry["name"],
        data=_data(document, (*at, "data"), entry.get("data", {})),
        condition=_when(document, at, entry) if "when" in entry else None,
        cases=tuple(_case(document, (*at, "cases", index), case) for index, case in enumerate(cases)),
        assume=assume,
        document=document,
        at=at,
    )


def _case(document: Document, at: KeyPath, entry: Any) -> Case:
    if not isinstance(entry, dict) or "when" not in entry or "data" not in entry:
        raise _fault(document, at, "a case must be a mapping with 'when' and 'data'.")
    _known_keys(document, at, entry, ("when", "data"))
    return Case(_when(document, at, entry), _data(document, (*at, "data"), entry["data"]), (*at, "data"))


def _when(document: Document, at: KeyPath, entry: dict[str, Any]) -> conditions.When:
    return conditions.parse(entry["when"], document.where((*at, "when")))


def _data(document: Document, at: KeyPath, data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _fault(document, at, "'data' must be a mapping.")
    copied: dict[str, Any] = yaml_documents.plain(data, document.where(at))
    return copied


def _known_keys(document: Document, at: KeyPath, content: Mapping[str, Any], keys: Sequence[str]) -> None:
    for key in content:
        if key not in keys:
            raise _fault(document, (*at, key), unknown("key", key, keys))


def _fault(document: Document, at: KeyPath, said: str) -> ConfigError:
    return ConfigError(f"{document.where(at)}: {said}", remedy="Correct the file at that place.")


def _fill(value: Any, context: TaskContext, source: str) -> Any:
    """Replace placeholders; one that is a whole text keeps its type, and one without a value removes its key."""
    if isinstance(value, dict):
        filled = {key: _fill(item, context, source) for key, item in value.items()}
        return {key: item for key, item in filled.items() if item is not None or value[key] is None}
    if isinstance(value, list):
        return [_fill(item, context, source) for item in value]
    if not isinstance(value, str):
        return value
    whole = _PLACEHOLDER.fullmatch(value)
    if whole:
        return yaml_documents.plain(_word(whole[1], context, source), source)
    return _PLACEHOLDER.sub(lambda found: str(_word(found[1], context, source)), value)


def _word(word: str, context: TaskContext, source: str) -> Any:
    if word not in WORDS:
        raise ConfigError(f"{source}: {unknown('placeholder', word, WORDS)}", remedy="Correct the placeholder.")
    return context.word(word)
