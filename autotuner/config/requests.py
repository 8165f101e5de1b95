"""Requests: whole tasks written in files, one or several to a file; or a run's experiment.yaml, to ask it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import count
from pathlib import Path
from typing import Any

from autotuner.config import yaml_documents
from autotuner.config.context import TaskContext
from autotuner.config.merging import merge
from autotuner.config.yaml_documents import Document
from autotuner.errors import ConfigError, unknown_name_message

ALIASES = {"overrides": "user_overrides", "slo": "slo_config", "model": "model_name", "runtime": "base_runtime"}
"""Short names of fields."""

FIELDS = tuple(field.name for field in fields(TaskContext) if field.name not in ("machine", "origin"))
LIST_KEYS = ("experiments", "exps")
"""Keys of a list of requests, or of the names of requests that stand beside it."""

STORE_KEYS = ("format", "kind")
"""The keys of experiment.yaml that belong to the run folder and not to the configuration: its version and kind."""


@dataclass(frozen=True)
class TaskRequest:
    """One task: its name, and the fields of a TaskContext that its file sets."""

    name: str
    fields: Mapping[str, Any]


def read_requests(files: Sequence[Path]) -> list[TaskRequest]:
    """The requests of some files, in order, with names made distinct; ConfigError if a file holds none."""
    requests = [request for file in files for request in _file_requests(file)]
    given = {request.name for request in requests}
    named: dict[str, TaskRequest] = {}
    for request in requests:
        name = request.name
        if name in named:
            numbered = (f"{request.name}-{number}" for number in count(2))
            name = next(each for each in numbered if each not in named and each not in given)
        named[name] = TaskRequest(name, request.fields)
    return list(named.values())


def _file_requests(file: Path) -> list[TaskRequest]:
    document = yaml_documents.read(file)
    data = yaml_documents.plain_data(yaml_documents.root_mapping(document), "")
    if "task_name" in data and "benchmark" in data:  # what a run has composed
        config = {key: value for key, value in data.items() if key not in STORE_KEYS}
        return [
            TaskRequest(
                _checked_name(data["task_name"], "task_name", document),
                {"user_overrides": config, "override_mode": "replace"},
            )
        ]
    key = next((key for key in LIST_KEYS if key in data), None)
    if key is None:
        return [_request(data, file.stem, document)]
    items = data[key]
    names = items if isinstance(items, list) and all(isinstance(item, str) for item in items) else []
    for name in names:
        if not isinstance(data.get(name), dict):
            raise ConfigError(
                f"{document.source} lists the experiment '{name}' and does not describe it.",
                remedy=f"Add `{name}:` with its fields at the top level of the file.",
            )
    # the name of the whole file is not that of its experiments
    common = {name: value for name, value in data.items() if name not in (key, "name", *names)}
    described = _described(items, {name: data[name] for name in names}, document, key)
    return [_request(merge(common, fields), name, document) for name, fields in described]


def _described(
    items: Any, by_name: Mapping[str, Any], document: Document, key: str
) -> list[tuple[str, Mapping[str, Any]]]:
    """(name, own fields) of each experiment of a list, of a list of names, or of a mapping."""
    if by_name:
        return [(name, by_name[name]) for name in items]
    if isinstance(items, dict):
        pairs = list(items.items())
    else:
        pairs = [(str(number), item) for number, item in enumerate(items if isinstance(items, list) else [], start=1)]
    if not pairs or not all(isinstance(item, dict) for _, item in pairs):
        raise ConfigError(
            f"`{key}` of {document.source} is not a list of experiments.",
            remedy="Write a list of mappings, a mapping of names to mappings, or a list of names described beside it.",
        )
    return pairs


def _checked_name(name: Any, key: str, document: Document) -> str:
    if isinstance(name, str) and name.strip():
        return name
    raise ConfigError(
        f"`{key}` of {document.source} is {name!r}, which is no name.",
        remedy="Write text, in quotes where it looks like a number.",
    )


def _request(data: Mapping[str, Any], name: Any, document: Document) -> TaskRequest:
    """One request; ConfigError for a field that no context has, or that is given under both of its names."""
    given: dict[str, Any] = {}
    for key, value in data.items():
        if key == "name":
            name = value
            continue
        field = ALIASES.get(key, key)
        if field not in FIELDS:
            raise ConfigError(
                unknown_name_message("field of a request", key, (*FIELDS, *ALIASES, "name", *LIST_KEYS)),
                why=f"It is in {document.source}.",
                remedy="Settings of the configuration, such as `benchmark`, go under `overrides`.",
            )
        if field in given:
            raise ConfigError(f"{document.source} gives {field} twice.", why=f"`{key}` is another name of it.")
        given[field] = [value] if field in ("profiles", "layers") and isinstance(value, str) else value
    if given.get("override_mode", "patch") not in ("patch", "replace"):
        raise ConfigError(f"override_mode of {document.source} must be patch or replace.")
    return TaskRequest(_checked_name(name, "name", document), given)
