"""Configuration layers, profiles, and the YAML files that define them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autotuner.config import conditions, yaml_documents
from autotuner.config.context import CONTEXT_KEYS, TaskContext
from autotuner.config.merging import merge, split_path
from autotuner.config.yaml_documents import Document, KeyPath
from autotuner.errors import ConfigError, unknown_name_message

LayerData = Mapping[str, Any] | Callable[[TaskContext], Mapping[str, Any]]
Condition = Callable[[TaskContext], bool]

METADATA_KEYS = ("description", "use_case", "tags", "recommended_for")
_log = logging.getLogger(__name__)
_PLACEHOLDER_PATTERN = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class ConfigLayer:
    """Named part of a configuration: data, or a function of the context, applied where `condition` holds."""

    name: str
    data: LayerData = field(default_factory=dict)
    condition: Condition | None = None

    def applies(self, context: TaskContext) -> bool:
        return self.condition is None or self._holds(self.condition, context)

    def _holds(self, condition: Condition, context: TaskContext) -> bool:
        """Whether a condition holds; one that raises does not, as a pattern on an unknown value matches nothing."""
        try:
            return condition(context)
        except Exception as error:  # noqa: BLE001 it may be any function of the context
            why = f"{type(error).__name__}: {error}"
            _log.debug("layer %s: its condition %s is taken as false: %s", self.name, _describe(condition), why)
            return False

    def resolve(self, context: TaskContext) -> dict[str, Any]:
        """Return a JSON-ready copy of the layer's data in this context."""
        data = self.data(context) if callable(self.data) else self.data
        if not isinstance(data, Mapping):
            raise ConfigError(
                f"Layer '{self.name}' gave a {type(data).__name__}, not a mapping.", remedy="Return a dict."
            )
        copied: dict[str, Any] = yaml_documents.plain_data(data, "")
        return copied

    def assumed_value(self, key: str) -> Any:
        """Value of a context key to assume where nothing else sets it, or None."""
        return None

    def locate(self, path: str) -> str:
        """Place of a dotted path in the layer's source text; empty for a layer made in Python."""
        return ""

    def describe(self) -> dict[str, Any]:
        """The layer as data: its name, and its data in an empty context."""
        return {"name": self.name, "data": dict(self.data(TaskContext()) if callable(self.data) else self.data)}


def _describe(condition: Condition) -> str:
    """A condition as it was written, or for a function its name and place."""
    code = getattr(condition, "__code__", None)
    return f"{code.co_name} ({code.co_filename}:{code.co_firstlineno})" if code else str(condition)


@dataclass(frozen=True)
class Case:
    """Data of a layer that applies only where a condition holds."""

    condition: Condition
    data: Mapping[str, Any]
    key_path: KeyPath


@dataclass(frozen=True)
class FileLayer(ConfigLayer):
    """Layer of a YAML file: its data and the first matching case merged, placeholders filled in."""

    cases: tuple[Case, ...] = ()
    assumptions: Mapping[str, Any] = field(default_factory=dict)
    document: Document = field(default_factory=lambda: Document({}, ""))
    key_path: KeyPath = ()

    def resolve(self, context: TaskContext) -> dict[str, Any]:
        """Return a JSON-ready copy of the layer's data in this context."""
        data = super().resolve(context)
        for case in self.cases:
            if self._holds(case.condition, context):
                data = merge(data, case.data)
                break
        filled: dict[str, Any] = _fill_placeholders(data, context, self.document.source)
        return filled

    def describe(self) -> dict[str, Any]:
        """The layer as written: name, `when`, `assume`, data, and cases."""
        entry = self.document.data
        for key in self.key_path:
            entry = entry[key]
        return {"name": self.name, **{key: entry[key] for key in ("when", "assume", "data", "cases") if key in entry}}

    def data_variants(self) -> list[Mapping[str, Any]]:
        """The layer's data and the data of every case, as written."""
        return [self.data if isinstance(self.data, Mapping) else {}, *(case.data for case in self.cases)]

    def assumed_value(self, key: str) -> Any:
        """Value of a context key to assume where nothing else sets it, or None."""
        return self.assumptions.get(key)

    def locate(self, path: str) -> str:
        keys = split_path(path)
        for prefix in ((*self.key_path, "data"), *(case.key_path for case in self.cases)):
            if (*prefix, *keys) in self.document.places:
                return self.document.locate((*prefix, *keys))
        return self.document.locate((*self.key_path, "data", *keys))


@dataclass(frozen=True)
class Profile:
    """Named layers that are applied together, with metadata. `source` is a file, or "registered"."""

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

    def prefixed_layers(self, prefix: str) -> tuple[ConfigLayer, ...]:
        """The layers, their names prefixed with where they come from."""
        return tuple(replace(layer, name=f"{prefix}{layer.name}") for layer in self.layers)


def load_profile(path: Path) -> Profile:
    """Read one layer file: metadata and `layers:`, each with name, when, assume, data and cases."""
    document = yaml_documents.read(path)
    content = yaml_documents.root_mapping(document)
    _check_keys(document, (), content, ("name", *METADATA_KEYS, "layers"))
    name = content.get("name", path.stem)
    if not isinstance(name, str) or not name:
        raise _file_error(document, ("name",), "'name' must be text.")
    for key in ("description", "use_case"):
        if not isinstance(content.get(key, ""), str):
            raise _file_error(document, (key,), f"'{key}' must be text.")
    for key in ("tags", "recommended_for"):
        values = content.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise _file_error(document, (key,), f"'{key}' must be a list of words.")
    entries = content.get("layers")
    if not isinstance(entries, list) or not entries:
        raise _file_error(document, ("layers",), "'layers' must be a list of at least one layer.")
    layers = tuple(_read_layer(document, ("layers", index), entry) for index, entry in enumerate(entries))
    return Profile(name, layers, {key: content[key] for key in METADATA_KEYS if key in content}, document.source)


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Refuse metadata of a registered profile with keys that no listing would show."""
    for key in metadata:
        if key not in ("name", *METADATA_KEYS):
            raise ConfigError(
                unknown_name_message("metadata key", key, ("name", *METADATA_KEYS)), remedy="Correct the key."
            )


def _read_layer(document: Document, key_path: KeyPath, entry: Any) -> FileLayer:
    if not isinstance(entry, dict):
        raise _file_error(document, key_path, "a layer must be a mapping with 'name' and 'data'.")
    _check_keys(document, key_path, entry, ("name", "when", "assume", "data", "cases"))
    if not isinstance(entry.get("name"), str) or not entry["name"]:
        raise _file_error(document, key_path, "a layer needs a 'name'.")
    if "data" not in entry and "cases" not in entry:
        raise _file_error(document, key_path, f"layer '{entry['name']}' has neither 'data' nor 'cases'.")
    assumptions = entry.get("assume", {})
    if not isinstance(assumptions, dict):
        raise _file_error(document, (*key_path, "assume"), "'assume' must be a mapping.")
    _check_keys(document, (*key_path, "assume"), assumptions, tuple(CONTEXT_KEYS))
    cases = entry.get("cases", [])
    if not isinstance(cases, list):
        raise _file_error(document, (*key_path, "cases"), "'cases' must be a list.")
    return FileLayer(
        name=entry["name"],
        data=_read_data(document, (*key_path, "data"), entry.get("data", {})),
        condition=_read_condition(document, key_path, entry) if "when" in entry else None,
        cases=tuple(_read_case(document, (*key_path, "cases", index), case) for index, case in enumerate(cases)),
        assumptions=assumptions,
        document=document,
        key_path=key_path,
    )


def _read_case(document: Document, key_path: KeyPath, entry: Any) -> Case:
    if not isinstance(entry, dict) or "when" not in entry or "data" not in entry:
        raise _file_error(document, key_path, "a case must be a mapping with 'when' and 'data'.")
    _check_keys(document, key_path, entry, ("when", "data"))
    return Case(
        _read_condition(document, key_path, entry),
        _read_data(document, (*key_path, "data"), entry["data"]),
        (*key_path, "data"),
    )


def _read_condition(document: Document, key_path: KeyPath, entry: dict[str, Any]) -> conditions.WhenCondition:
    return conditions.parse_condition(entry["when"], document.locate((*key_path, "when")))


def _read_data(document: Document, key_path: KeyPath, data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _file_error(document, key_path, "'data' must be a mapping.")
    copied: dict[str, Any] = yaml_documents.plain_data(data, document.locate(key_path))
    return copied


def _check_keys(document: Document, key_path: KeyPath, content: Mapping[str, Any], keys: Sequence[str]) -> None:
    for key in content:
        if key not in keys:
            raise _file_error(document, (*key_path, key), unknown_name_message("key", key, keys))


def _file_error(document: Document, key_path: KeyPath, message: str) -> ConfigError:
    return ConfigError(f"{document.locate(key_path)}: {message}", remedy="Correct the file at that place.")


def _fill_placeholders(value: Any, context: TaskContext, source: str) -> Any:
    """Replace placeholders: one that is the whole text keeps its type, one without a value removes its key."""
    if isinstance(value, dict):
        filled = {key: _fill_placeholders(item, context, source) for key, item in value.items()}
        return {key: item for key, item in filled.items() if item is not None or value[key] is None}
    if isinstance(value, list):
        return [_fill_placeholders(item, context, source) for item in value]
    if not isinstance(value, str):
        return value
    match = _PLACEHOLDER_PATTERN.fullmatch(value)
    if match:
        return yaml_documents.plain_data(_placeholder_value(match[1], context, source), source)
    return _PLACEHOLDER_PATTERN.sub(lambda match: str(_placeholder_value(match[1], context, source)), value)


def _placeholder_value(name: str, context: TaskContext, source: str) -> Any:
    if name not in CONTEXT_KEYS:
        raise ConfigError(
            f"{source}: {unknown_name_message('placeholder', name, CONTEXT_KEYS)}", remedy="Correct the placeholder."
        )
    return context.value(name)
