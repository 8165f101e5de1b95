"""Checks a configuration's keys and values and words the errors in terms of the user's keys or options."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from autotuner.config import ranges
from autotuner.config.merging import ATOMIC_SECTIONS, MergedConfig, leaves, origin_text
from autotuner.config.overrides import COMMAND_LINE, OPTION_BY_PATH
from autotuner.errors import ConfigError, mask_credentials, unknown_name_message
from autotuner.experiment import (
    EACH_REQUEST,
    LATENCY_METRICS,
    MINIMUM_METRICS,
    STATISTICS,
    Experiment,
    Slo,
    SloTerm,
    duration_seconds,
)

TERM_KEYS = tuple(name for name in SloTerm.model_fields if name not in ("metric", "statistic"))
SLO_ALIASES = {"e2e": "latency", "e2el": "latency", "ttfo": "ttft", "throughput": "output_throughput"}
"""Names that users may try for SLO metrics; an error suggests the right one."""


def check_keys(layer_name: str, data: Mapping[str, Any], locate: Callable[[str], str]) -> None:
    """Refuse unknown keys at any level; the ConfigError names the nearest valid key and the layer."""
    for parameter, values in _as_mapping(data.get("parameters")).items():
        if problem := ranges.key_problem(values):
            json_form = ranges.json_form(parameter, values)
            raise ConfigError(
                f"parameters.{parameter}: {problem}",
                why=_origin_sentence(layer_name, locate(f"parameters.{parameter}")),
                remedy=json_form or f"Give a value, a list of values to try, or a range such as {ranges.EXAMPLES}.",
            )
    for path, options in _unknown_keys(data, Experiment, ""):
        *parents, key = path.split(".")
        kind = f"key in {'.'.join(parents)}" if parents else "key"
        other_paths = [valid for valid in _all_paths() if valid.rpartition(".")[2] == key.replace("-", "_")]
        other_paths += [f"slo.{SLO_ALIASES[key]}"] if parents == ["slo"] and key in SLO_ALIASES else []
        if other_paths and not difflib.get_close_matches(key, options, n=1, cutoff=0.8):
            what = f"Unknown {kind} '{key}'; did you mean {' or '.join(map(repr, other_paths))}?"
        else:
            what = unknown_name_message(kind, key, options)
        raise ConfigError(
            what,
            why=_origin_sentence(layer_name, locate(path)),
            remedy="Correct the key." if parents else "Correct the key; an engine's parameters go under 'parameters'.",
        )


def _as_mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _origin_sentence(layer_name: str, place: str) -> str:
    return f"It comes from {origin_text(layer_name, place)}."


def normalize_slo(slo: Any) -> Any:
    """Rewrite an SLO in one form so that layers merge: bare numbers become thresholds, a list of terms a mapping."""
    if not isinstance(slo, Mapping):
        return slo
    normalized = {key: value for key, value in slo.items() if key != "terms"}
    if "terms" in slo:
        terms = slo["terms"]
        if normalized.keys() - {"attainment"} or not isinstance(terms, list) or not all(map(_is_term, terms)):
            return slo
        for term in terms:
            fields = {key: value for key, value in term.items() if key not in ("metric", "statistic")}
            statistic = term.get("statistic", EACH_REQUEST)
            normalized.setdefault(term["metric"], {}).update(
                fields if statistic == EACH_REQUEST else {statistic: fields}
            )
    return {
        metric: body if metric == "attainment" else _normalize_term(metric, body) for metric, body in normalized.items()
    }


def _is_term(term: Any) -> bool:
    """Whether this is a serialized `SloTerm`, with its metric inside."""
    return (
        isinstance(term, Mapping)
        and term.get("metric") in LATENCY_METRICS + MINIMUM_METRICS
        and isinstance(term.get("statistic", EACH_REQUEST), str)
    )


def validate(merged: MergedConfig, remedy: str) -> Experiment:
    """Parse the configuration into an Experiment; ConfigError lists every fault with its value and layer."""
    try:
        return Experiment.model_validate(merged.data)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        missing = [_dotted_path(fault["loc"], merged) for fault in faults if fault["type"] == "missing"]
        messages = [f"missing: {', '.join(missing)}"] if missing else []
        messages += [_fault_text(dict(fault), merged) for fault in faults if fault["type"] != "missing"]
        raise ConfigError(f"The configuration cannot be used: {'; '.join(messages)}", remedy=remedy) from error


def _normalize_term(metric: str, body: Any) -> Any:
    if not isinstance(body, Mapping):
        return _as_threshold(metric, body)
    normalized = {}
    for key, value in body.items():
        if key in STATISTICS:
            normalized[key] = _normalize_term(metric, value)
        else:
            normalized[key] = _in_seconds(metric, value) if key == "threshold" else value
    return normalized


def _as_threshold(metric: str, value: Any) -> Any:
    value = _in_seconds(metric, value)
    return {"threshold": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


def _in_seconds(metric: str, value: Any) -> Any:
    """The value of a latency target in seconds, if it is text with a unit; any other value as it is."""
    seconds = duration_seconds(value) if isinstance(value, str) and metric in LATENCY_METRICS else None
    return value if seconds is None else seconds


def _unknown_keys(data: Mapping[str, Any], section: type[BaseModel], prefix: str) -> Iterator[tuple[str, list[str]]]:
    """(Dotted path, valid keys) of each key that `section` does not have."""
    if section is Slo:
        yield from _unknown_slo_keys(data, prefix)
        return
    for key, value in data.items():
        field = section.model_fields.get(key)
        if field is None:
            yield f"{prefix}{key}", list(section.model_fields)
        elif (
            isinstance(value, Mapping)
            and isinstance(field.annotation, type)
            and issubclass(field.annotation, BaseModel)
        ):
            yield from _unknown_keys(value, field.annotation, f"{prefix}{key}.")


def _unknown_slo_keys(data: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, list[str]]]:
    for metric, term in data.items():
        if metric == "attainment":
            continue
        if metric not in LATENCY_METRICS + MINIMUM_METRICS:
            yield f"{prefix}{metric}", [*LATENCY_METRICS, *MINIMUM_METRICS, "attainment"]
        elif isinstance(term, Mapping):
            # A throughput is one number per load point: it has no percentiles.
            statistics = STATISTICS if metric in LATENCY_METRICS else ()
            for key, body in term.items():
                if key not in (*TERM_KEYS, *statistics):
                    yield f"{prefix}{metric}.{key}", [*TERM_KEYS, *statistics]
                elif key in statistics and isinstance(body, Mapping):
                    for name in body:
                        if name not in TERM_KEYS:
                            yield f"{prefix}{metric}.{key}.{name}", list(TERM_KEYS)


def _all_paths(section: type[BaseModel] = Experiment, prefix: str = "") -> list[str]:
    """Dotted paths of every key of a configuration."""
    paths = []
    for key, field in section.model_fields.items():
        paths.append(f"{prefix}{key}")
        if (
            isinstance(field.annotation, type)
            and issubclass(field.annotation, BaseModel)
            and field.annotation is not Slo
        ):
            paths += _all_paths(field.annotation, f"{prefix}{key}.")
    return paths


def _dotted_path(loc: tuple[int | str, ...], merged: MergedConfig) -> str:
    """Dotted path, as users write it, of a pydantic error location."""
    if loc[:2] == ("slo", "terms") and len(loc) > 2:
        loc = (*_term_paths(merged.data["slo"])[int(loc[2])], *loc[3:])
    return ".".join(str(part) for part in loc if not isinstance(part, int))


def _term_paths(slo: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Key path of each SLO term in the mapping, in the order in which `Slo` reads them."""
    paths: list[tuple[str, ...]] = []
    for metric, term in slo.items():
        if isinstance(term, Mapping):
            paths += [("slo", metric)] if any(key not in STATISTICS for key in term) else []
            paths += [("slo", metric, key) for key in term if key in STATISTICS]
        elif metric != "attainment":
            paths.append(("slo", metric))
    return paths


def _fault_text(fault: dict[str, Any], merged: MergedConfig) -> str:
    """One sentence for an error of pydantic's `errors()`: the option or key, what is wrong, the layer it came from."""
    loc = fault["loc"]
    if loc[:1] == ("parameters",):
        loc = loc[:2]
    path = _dotted_path(loc, merged)
    message = fault["msg"].removeprefix("Value error, ")
    message, source = _translate_keys(message, path, merged)
    origin = merged.origin(path)
    if path in OPTION_BY_PATH and origin == COMMAND_LINE:
        path = OPTION_BY_PATH[path]
    elif source is None:
        source = f" (from {origin})" if origin else ""
    source = source or ""
    value = fault["input"]
    if fault["type"] == "literal_error":
        options = re.findall(r"'([^']*)'", fault["ctx"]["expected"])
        return f"{path}: {unknown_name_message('value', str(value), options).rstrip('.')}{source}"
    if fault["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{path}: must be a mapping{source}"
    if fault["type"] == "tuple_type":
        message = "must be a list"
    elif fault["type"] == "string_type":
        message = f"must be text{_quoting_hint(value)}"
    shows_value = isinstance(value, dict | list) or (isinstance(value, str) and f"'{value}'" in message)
    value_text = "" if shows_value else f", not {mask_credentials(repr(value))}"
    if fault["type"] == "string_type" and isinstance(value, bool | int | float):
        value_text = ""
    prefix = "" if _BACKQUOTED_KEY.search(fault["msg"]) else f"{path}: "
    return f"{prefix}{message[:1].lower()}{message[1:]}{value_text}{source}"


def _quoting_hint(value: Any) -> str:
    """How to write a value that YAML did not read as text; empty where quotes do not help."""
    if isinstance(value, bool):
        words = "on, yes and true" if value else "off, no and false"
        return f", not {str(value).lower()}: quote it (YAML reads {words} as {str(value).lower()} unless quoted)"
    if isinstance(value, int | float):
        return f", not the number {value}: quote it, as '{value}'"
    return ""


def _translate_keys(message: str, section: str, merged: MergedConfig) -> tuple[str, str | None]:
    """Replace the backquoted keys of a message about several values; returns the message and where they came from.

    Keys become options if one of them was given on the command line. The source is None if no key is backquoted.
    """
    paths = {key: f"{section}.{key}" for key in _BACKQUOTED_KEY.findall(message)}
    if not paths:
        return message, None
    origins = dict.fromkeys(merged.origin(path) for path in paths.values() if path in merged.provenance)
    use_options = COMMAND_LINE in origins
    replacements = {key: OPTION_BY_PATH.get(path, key) if use_options else key for key, path in paths.items()}
    other_origins = [origin for origin in origins if origin != COMMAND_LINE]
    return _BACKQUOTED_KEY.sub(
        lambda key: replacements[key[1]], message
    ), f" (from {', '.join(other_origins)})" if other_origins else ""


_BACKQUOTED_KEY = re.compile(r"`([a-z_]+)`")


def default_value(path: str) -> Any:
    """JSON-ready default of a dotted path, or None."""
    *sections, last = path.split(".")
    section: Any = Experiment
    for key in sections:
        section = getattr(section, "model_fields", {}).get(key)
        section = section and section.annotation
    field = getattr(section, "model_fields", {}).get(last)
    return field and to_jsonable_python(field.get_default(call_default_factory=True), fallback=lambda value: None)


def default_leaves(experiment: Experiment, data: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted path -> default, for every value that no layer set."""
    defaults = leaves(experiment.model_dump(mode="json", exclude={"slo", *ATOMIC_SECTIONS}))
    defaults["slo.attainment"] = experiment.slo.attainment
    set_leaves = leaves(data)
    return {
        path: value
        for path, value in defaults.items()
        if path not in set_leaves and not any(leaf.startswith(f"{path}.") for leaf in set_leaves)
    }
