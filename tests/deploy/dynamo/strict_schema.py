"""The part of OpenAPI schemas that CRDs use, where every field that is not in the schema is an error."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


def problems(value: Any, schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Every place where the value does not fit the schema."""
    if "anyOf" in schema:
        if all(list(problems(value, option, path)) for option in schema["anyOf"]):
            yield f"{path} fits nothing"
        return
    kind = schema.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield f"{path} is no {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path} is {value}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{path} does not match"
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{path} is too small"
    yield from (f"{path} lacks {name}" for name in schema.get("required", ()) if name not in value)
    if isinstance(value, list):
        for position, item in enumerate(value):
            yield from problems(item, schema["items"], f"{path}[{position}]")
    if isinstance(value, dict):
        for name, item in value.items():
            part = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if part is None:
                yield f"{path} has no {name}"
            else:
                yield from problems(item, part, f"{path}.{name}")
