"""Composes layers, in order, into one validated experiment and records which layer set each value."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotuner.config import catalog, selection, yaml_documents
from autotuner.config.advice import experiment_warnings
from autotuner.config.context import CALLER_PRIORITY_KEYS, CONTEXT_KEYS, TaskContext
from autotuner.config.facts import check_identity, resolve_context
from autotuner.config.finalize import check_deployment, finalize
from autotuner.config.gpus import check_gpus
from autotuner.config.inactive import remove_inactive
from autotuner.config.layers import ConfigLayer
from autotuner.config.merging import CALLER_LAYERS, MergedConfig, leaves, merge, nest, origin_text, value_at
from autotuner.config.overrides import SLO_OPTION, written_name
from autotuner.config.schema import check_keys, default_leaves, normalize_slo, validate
from autotuner.errors import ConfigError, unknown_name_message
from autotuner.experiment import Experiment
from autotuner.redaction import remember_settings, secret_in

log = logging.getLogger(__name__)


_SECTIONS_WITH_SECRETS = ("deployment.headers", "runtime.env", "runtime.extra_args", "parameters.")
_NAMES_OF_SECRETS = ("deployment.secret_name", "deployment.image_pull_secret")
"""Settings that name a Secret of Kubernetes, which holds the value."""

_PLAIN_TEXT_REASON = "A configuration is written to the run folder and printed."

Locator = Callable[[str], str]

_PATCH_REMEDY = "Correct these values."
_REPLACE_REMEDY = (
    "Override mode replace drops all layers, so the override must hold everything that a run needs; "
    "add what is missing or wrong, or use --override-mode patch."
)


@dataclass(frozen=True)
class ResolvedValue:
    """One resolved value: dotted path, the layer that set it ("default" if none did) and where it was written."""

    path: str
    value: Any
    layer: str
    place: str = ""


@dataclass(frozen=True)
class Composition:
    """A composed configuration.

    `data` is JSON-ready and holds what the layers set; `experiment` is the same, typed and with defaults.
    `provenance` maps each dotted leaf of `data` to the layer that set it ("context" if a field of the
    context did), `places` to the file, line and column it was read from (empty for values made in Python).
    `overridden_values` lists the earlier values of a leaf, latest first. `reasons` says, by dotted path,
    why this machine chose a value.
    """

    data: dict[str, Any]
    layers: list[str]
    provenance: dict[str, str]
    experiment: Experiment
    warnings: list[str]
    places: dict[str, str]
    overridden_values: dict[str, list[ResolvedValue]]
    reasons: dict[str, str]

    @property
    def notes(self) -> list[str]:
        """What this machine decided in the configuration, and why."""
        path = "deployment.mode"
        return [f"deployment {value_at(self.data, path)}: {self.reasons[path]}"] if path in self.reasons else []

    def origin(self, path: str) -> str:
        """The layer and place that set a value, as text for an error message; empty if none did."""
        return origin_text(self.provenance[path], self.places[path]) if path in self.provenance else ""

    def resolved_values(self) -> list[ResolvedValue]:
        """Every value, defaults included, in the order of the configuration's sections."""
        values = [
            ResolvedValue(path, leaf, self.provenance[path], self.places[path])
            for path, leaf in leaves(self.data).items()
        ]
        values += [
            ResolvedValue(path, leaf, "default") for path, leaf in default_leaves(self.experiment, self.data).items()
        ]
        sections = list(Experiment.model_fields)
        return sorted(values, key=lambda value: sections.index(value.path.partition(".")[0]))


def compose(context: TaskContext) -> Composition:
    """Compose the configuration that `context` requests; ConfigError says what is wrong and where it was written."""
    if context.override_mode not in ("patch", "replace"):
        raise ConfigError(
            unknown_name_message("override mode", str(context.override_mode), ("patch", "replace")),
            remedy="Give patch or replace.",
        )
    automatic, warnings = catalog.automatic_layers()
    selected = selection.read_selection(context)
    resolved = resolve_context(context, automatic, [*selected.presets, *selected.profiles])
    full_context, replaces = resolved.context, context.replaces_layers
    if not replaces:
        check_identity(full_context)

    merged = MergedConfig()
    _add_layers(merged, (*automatic, *selected.presets, *selected.profiles), full_context)
    warnings += selected.warnings
    if replaces:
        _apply_overrides(merged, context)
        _add_layers(merged, selected.slo, full_context)
    else:
        warnings += _restore_caller_values(merged, full_context)
        _add_layers(merged, selected.slo, full_context)
        _apply_overrides(merged, context)
    if isinstance(context.slo_config, Mapping):
        _add_layer(merged, "slo_config", {"slo": context.slo_config}, lambda path: SLO_OPTION if context.origin else "")
    warnings += finalize(merged, full_context)
    warnings += check_gpus(merged, resolved, context.gpu_type)
    _credit_caller(merged, context)
    remedy = _REPLACE_REMEDY if replaces else _PATCH_REMEDY
    experiment = validate(merged, remedy)
    check_deployment(merged)
    _refuse_secrets(merged)
    if inactive := remove_inactive(merged, experiment):
        warnings += inactive
        experiment = validate(merged, remedy)
    return Composition(
        data=merged.data,
        layers=merged.layers,
        provenance=merged.provenance,
        experiment=experiment,
        warnings=[*warnings, *experiment_warnings(experiment)],
        places=merged.places,
        overridden_values={
            path: [ResolvedValue(path, *earlier) for earlier in reversed(merged.history.get(path, [])[:-1])]
            for path in merged.provenance
        },
        reasons={path: reason for path, reason in resolved.reasons.items() if path in merged.provenance},
    )


def _refuse_secrets(merged: MergedConfig) -> None:
    """ConfigError for a secret that the run folder would keep; those of headers are masked there.

    Those of the engine's command and environment are refused where these are checked, with what to write instead.
    """
    # a layer may repeat what the caller gave, as task names do the model's
    for path, value in sorted(
        leaves(merged.data).items(), key=lambda leaf: merged.provenance[leaf[0]] not in CALLER_LAYERS
    ):
        is_exempt = path.startswith(_SECTIONS_WITH_SECRETS) or path in _NAMES_OF_SECRETS
        if not is_exempt and (reason := secret_in(path, value)):
            raise ConfigError(
                f"{path} {reason}.",
                why=f"{_PLAIN_TEXT_REASON} It comes from {origin_text(merged.provenance[path], merged.places[path])}.",
                remedy="Leave it out. What a server needs can be sent as a header: --header or deployment.headers.",
            )


def resolved_context(context: TaskContext) -> TaskContext:
    """`context` with the model, engine, deployment and load filled in from overrides, layers and assumptions."""
    automatic, _ = catalog.automatic_layers()
    selected = selection.read_selection(context)
    return resolve_context(context, automatic, [*selected.presets, *selected.profiles]).context


def _add_layers(merged: MergedConfig, layers: Sequence[ConfigLayer], context: TaskContext) -> None:
    for layer in layers:
        if layer.applies(context):
            _add_layer(merged, layer.name, layer.resolve(context), layer.locate)


def _add_layer(
    merged: MergedConfig,
    layer_name: str,
    data: Mapping[str, Any],
    locate: Locator = lambda path: "",
    *,
    replace_all: bool = False,
) -> None:
    """Check one layer's keys and merge it on top."""
    log.debug("layer %s: %s", layer_name, ", ".join(leaves(data)) or "nothing")
    plain_layer = yaml_documents.plain_data(data, "", lambda path: written_name(path, locate(path)))
    remember_settings({path: value for path, value in leaves(plain_layer).items() if path not in _NAMES_OF_SECRETS})
    if "slo" in plain_layer:
        plain_layer["slo"] = normalize_slo(plain_layer["slo"])
    check_keys(layer_name, plain_layer, locate)
    (merged.replace if replace_all else merged.add)(layer_name, plain_layer, locate)


def _restore_caller_values(merged: MergedConfig, context: TaskContext) -> list[str]:
    """Put back the values that the caller named and a profile changed; returns warnings."""
    restored: dict[str, Any] = {}
    warnings = []
    for key in CALLER_PRIORITY_KEYS:
        path, requested = CONTEXT_KEYS[key][1], context.value(key)
        current = value_at(merged.data, path)
        overridden = value_at(context.user_overrides or {}, path) is not None
        if current is not None and requested is not None and current != requested and not overridden:
            warnings.append(f"{path} is {requested}, as requested, not {current} ({merged.origin(path)})")
            restored = merge(restored, nest(path, requested))
    if restored:
        merged.add("context", restored, lambda path: context.origin)
    return warnings


def _credit_caller(merged: MergedConfig, context: TaskContext) -> None:
    """Attribute GPUs to the caller where a layer only passed on what the caller named."""
    for key in ("gpu", "total_gpus"):
        name, path = CONTEXT_KEYS[key]
        value = getattr(context, name)
        if value is not None and value_at(merged.data, path) == value and merged.provenance[path] not in CALLER_LAYERS:
            merged.credit(path, "context", context.origin)


def _apply_overrides(merged: MergedConfig, context: TaskContext) -> None:
    """Merge the user's overrides on top, or start over from them."""
    if context.user_overrides is None:
        return
    places: Mapping[str, str] = getattr(context.user_overrides, "places", {})

    def locate(path: str) -> str:
        """Where the override at or below `path`, or of a section around it, was written; empty if unknown."""
        if path in places:
            return places[path]
        nearby = (
            place for leaf, place in places.items() if f"{leaf}.".startswith(f"{path}.") or path.startswith(f"{leaf}.")
        )
        return next(nearby, "")

    replaces = context.override_mode == "replace"
    if context.user_overrides or replaces:
        _add_layer(
            merged, "user_replace" if replaces else "user_patch", context.user_overrides, locate, replace_all=replaces
        )
