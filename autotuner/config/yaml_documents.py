"""Parses YAML text into plain data and records the place of every key."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from autotuner.errors import ConfigError, shorten_middle

try:
    from yaml import CSafeLoader as _BaseLoader
except ImportError:  # PyYAML built without libyaml
    from yaml import SafeLoader as _BaseLoader  # type: ignore[assignment]

EXTENSION_PREFIX = "x-"
"""Beginning of the top-level keys that a file may use for itself."""

MAX_CHARACTERS, MAX_VALUES, MAX_DEPTH = 8_000_000, 500_000, 100
"""What one file may hold, aliases written out: nine short lines of aliases of aliases make millions of values."""

KeyPath = tuple[str | int, ...]


class _YamlLoader(_BaseLoader):
    """The safe loader without dates, and with 1e-3 parsed as a number, as in YAML 1.2."""


_YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _BaseLoader.yaml_implicit_resolvers.items()
}
_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class _YamlDumper(yaml.SafeDumper):
    """Quotes every text that _YamlLoader would not read back as text."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write repeated values out instead of using anchors."""
        return True


_YamlDumper.yaml_implicit_resolvers = _YamlLoader.yaml_implicit_resolvers


@dataclass(frozen=True)
class Document:
    """One parsed text: `places` maps the path of each key and list item to "source:line:column"."""

    data: Any
    source: str
    places: Mapping[KeyPath, str] = field(default_factory=dict)

    def locate(self, path: KeyPath) -> str:
        """Place of `path`, or of its nearest enclosing key."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, self.source)


def read(path: Path) -> Document:
    """Read one YAML file; ConfigError with line and column where it is malformed."""
    try:
        # Windows editors begin a file with a byte order mark; a device would never end
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise ConfigError(
                f"{path} is not UTF-8 text.", why=f"Byte {error.start} cannot be read.", remedy="Save it as UTF-8."
            ) from error
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"Cannot read {path}: {reason}.", remedy="Check the path.") from error
    return parse(text, source=_relative_path(path))


def dump(data: Any) -> str:
    """Plain data as YAML text that `parse` reads back."""
    text: str = yaml.dump(data, Dumper=_YamlDumper, sort_keys=False, default_flow_style=None)
    return text


def dump_inline(value: Any) -> str:
    """A value as YAML on one line."""
    text: str = yaml.dump(value, Dumper=_YamlDumper, sort_keys=False, default_flow_style=True, width=math.inf)
    return text.removesuffix("...\n").strip()


def parse(text: str, source: str) -> Document:
    """Parse YAML text; `source` names it in errors."""
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(
            f"{source} has more than {MAX_CHARACTERS:,} characters.", remedy="A configuration needs far fewer."
        )
    try:
        loader = _YamlLoader(text)
        try:
            node = loader.get_single_node()
            places: dict[KeyPath, str] = {}
            if node is not None:
                _check_size(node, source)
                places.update(_key_places(node, (), source, set()))
            data = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        message = " ".join(part for part in (error.context, error.problem) if part)
        remedy = "Correct the text at that place."
        if mark and _is_tab(text, mark):
            remedy = "Replace the tab at that place: YAML is indented with spaces."
        raise ConfigError(f"{place}: not valid YAML: {message}.", remedy=remedy) from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        # beside YAML's own errors, those of tagged values such as `!!int x`, and of numbers of thousands of digits
        message = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"{source}: not valid YAML: {shorten_middle(message, 200)}.", remedy="Correct the text."
        ) from error
    return Document(data, source, places)


def _is_tab(text: str, mark: yaml.Mark) -> bool:
    """Whether the character at a mark is a tab."""
    lines = text.split("\n")
    return mark.line < len(lines) and lines[mark.line][mark.column : mark.column + 1] == "\t"


def root_mapping(document: Document) -> dict[str, Any]:
    """The document's data, which must be a mapping, without x- keys; an empty document is an empty mapping.

    Keys that begin with x- hold what anchors name, for use elsewhere in the file.
    """
    if document.data is None:
        return {}
    if not isinstance(document.data, dict):
        raise ConfigError(f"{document.source} holds no mapping.", remedy="Write 'key: value' lines at its top level.")
    return {key: value for key, value in document.data.items() if not str(key).startswith(EXTENSION_PREFIX)}


def plain_data(value: Any, label: str, written_name: Callable[[str], str] = str, depth: int = 0) -> Any:
    """Copy `value`, which lies `depth` levels deep, as JSON-ready data.

    `written_name(label)` names it in errors, by default as `label` does.
    """
    if depth > MAX_DEPTH:
        top = ".".join(label.split(".")[:2])
        raise ConfigError(f"{top} is nested more than {MAX_DEPTH} levels deep.", remedy="Write it flatter.")
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(
                f"{written_name(label)} is {value}, which is not a finite number.", remedy="Give a finite number."
            )
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ConfigError(
                    f"{written_name(label)} has the key {key!r}, which is not text.", remedy="Write keys as text."
                )
        return {
            key: plain_data(item, f"{label}.{key}" if label else key, written_name, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain_data(item, label, written_name, depth + 1) for item in value]
    raise ConfigError(
        f"{written_name(label)} holds a {type(value).__name__}.",
        remedy="Use text, numbers, true or false, null, lists and mappings only.",
    )


def _relative_path(path: Path) -> str:
    """Path relative to the current folder if it lies below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _check_size(root: yaml.Node, source: str) -> None:
    """ConfigError if a document with its aliases written out is too large or too deep to be a configuration."""
    sizes: dict[int, tuple[int, int]] = {}

    def measure(node: yaml.Node, depth: int) -> tuple[int, int]:
        """(Number of values, height) of a node; each is visited once, however many aliases name it."""
        if id(node) in sizes:
            count, height = sizes[id(node)]
        else:
            sizes[id(node)] = 1, 1  # for an anchor that contains itself, which has an error of its own
            children: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                children = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                children = node.value
            elif "\0" in node.value:
                raise ConfigError(
                    f"{_place(node, source)}: a text with a NUL character, which no path or argument can hold.",
                    remedy="Take it out.",
                )
            measured = [measure(child, depth + 1) for child in children] if depth < MAX_DEPTH else [(0, MAX_DEPTH)]
            count = 1 + sum(child[0] for child in measured)
            height = 1 + max((child[1] for child in measured), default=0)
            sizes[id(node)] = count, height
        if depth + height > MAX_DEPTH + 1 and isinstance(node, yaml.CollectionNode):
            raise ConfigError(
                f"{_place(node, source)}: nested more than {MAX_DEPTH} levels deep.", remedy="Write it flatter."
            )
        if count > MAX_VALUES:
            raise ConfigError(
                f"{_place(node, source)}: more than {MAX_VALUES:,} values, with its aliases written out.",
                remedy="Write fewer values, or fewer aliases of lists of aliases.",
            )
        return count, height

    measure(root, 0)


def _key_places(node: yaml.Node, path: KeyPath, source: str, open_nodes: set[int]) -> Iterator[tuple[KeyPath, str]]:
    """(Key path, place) of each key and item; ConfigError for duplicate keys, keys that are not text, and cycles."""
    if id(node) in open_nodes:
        raise ConfigError(f"{_place(node, source)}: an anchor contains itself.", remedy="Remove the alias.")
    open_nodes.add(id(node))
    if isinstance(node, yaml.MappingNode):
        key_lines: dict[str, str] = {}
        for key, value in node.value:
            place = _place(key, source)
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                raise ConfigError(f"{place}: a key must be text.", remedy="Put it in quotes.")
            if key.value in key_lines:
                raise ConfigError(
                    f"{place}: the key '{key.value}' is there twice.",
                    why=f"It was set before at {key_lines[key.value]}.",
                    remedy="Keep one of the two.",
                )
            key_lines[key.value] = place
            yield (*path, key.value), place
            yield from _key_places(value, (*path, key.value), source, open_nodes)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, index), _place(item, source)
            yield from _key_places(item, (*path, index), source, open_nodes)
    open_nodes.discard(id(node))


def _place(node: yaml.Node, source: str) -> str:
    return f"{source}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
