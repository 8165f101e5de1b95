"""Composition: layers in order, one validated experiment, and for every value the layer it came from."""

from __future__ import annotations

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
from autotuner.config.merging import CALLER_LAYERS, MergedConfig, leaves, merge, nest, value_at
from autotuner.config.schema import check_keys, default_leaves, normalize_slo, validate
from autotuner.errors import ConfigError, unknown_name_message
from autotuner.experiment import Experiment

SLO_OPTION = "--slo"

Locator = Callable[[str], str]

_PATCH_REMEDY = "Correct these values."
_REPLACE_REMEDY = (
    "Override mode replace drops what every layer says, so the override must hold all that a run needs; "
    "add what is missing or wrong, or use --override-mode patch."
)


@dataclass(frozen=True)
class ResolvedValue:
    """One resolved value: its dotted path, its layer ("default" where none set it) and its place in a text."""

    path: str
    value: Any
    layer: str
    place: str = ""


@dataclass(frozen=True)
class Composition:
    """A composed configuration.

    `data` is JSON-ready and holds what the layers said, `experiment` the same with types and
    defaults. `provenance` maps each dotted leaf of `data` to the layer that set it, "context" where a
    field of the context did, `places`
    to the file, line and column it was read from (empty for values made in Python). `overridden`
    holds what earlier layers had said of a leaf, latest first. `reasons` says of a path that this
    machine decided why it did so.
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
        """What a user should know of the machine's part in this configuration."""
        path = "deployment.mode"
        return [f"deployment {value_at(self.data, path)}: {self.reasons[path]}"] if path in self.reasons else []

    def resolved_values(self) -> list[ResolvedValue]:
        """Every value, with defaults, in the order of the configuration's sections."""
        rows = [
            ResolvedValue(path, value, self.provenance[path], self.places[path])
            for path, value in leaves(self.data).items()
        ]
        rows += [
            ResolvedValue(path, value, "default") for path, value in default_leaves(self.experiment, self.data).items()
        ]
        sections = list(Experiment.model_fields)
        return sorted(rows, key=lambda row: sections.index(row.path.partition(".")[0]))


def compose(context: TaskContext) -> Composition:
    """Compose what `context` asks for; ConfigError says what cannot be used and where it was written."""
    if context.override_mode not in ("patch", "replace"):
        raise ConfigError(
            unknown_name_message("override mode", str(context.override_mode), ("patch", "replace")),
            remedy="Give patch or replace.",
        )
    automatic, warnings = catalog.automatic_layers()
    wanted = selection.read_selection(context)
    facts = resolve_context(context, automatic, [*wanted.presets, *wanted.profiles])
    settled, replacing = facts.context, context.replaces_layers
    if not replacing:
        check_identity(settled)

    merged = MergedConfig()
    _add_layers(merged, (*automatic, *wanted.presets, *wanted.profiles), settled)
    warnings += wanted.warnings
    if replacing:
        _apply_overrides(merged, context)
        _add_layers(merged, wanted.slo, settled)
    else:
        warnings += _restore_caller_values(merged, settled)
        _add_layers(merged, wanted.slo, settled)
        _apply_overrides(merged, context)
    if isinstance(context.slo_config, Mapping):
        _add_layer(merged, "slo_config", {"slo": context.slo_config}, lambda path: SLO_OPTION if context.origin else "")
    warnings += finalize(merged, settled)
    warnings += check_gpus(merged, facts, context.gpu_type)
    _credit_caller(merged, context)
    remedy = _REPLACE_REMEDY if replacing else _PATCH_REMEDY
    experiment = validate(merged, remedy)
    check_deployment(merged)
    if left_out := remove_inactive(merged, experiment):
        warnings += left_out
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
        reasons={path: why for path, why in facts.reasons.items() if path in merged.provenance},
    )


def resolved_context(context: TaskContext) -> TaskContext:
    """`context` with the model, engine, deployment and load that overrides, layers and assumptions tell."""
    automatic, _ = catalog.automatic_layers()
    wanted = selection.read_selection(context)
    return resolve_context(context, automatic, [*wanted.presets, *wanted.profiles]).context


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
    """Check one layer's keys and lay it on top."""
    plain = yaml_documents.plain_data(data, "")
    if "slo" in plain:
        plain["slo"] = normalize_slo(plain["slo"])
    check_keys(layer_name, plain, locate)
    (merged.replace if replace_all else merged.add)(layer_name, plain, locate)


def _restore_caller_values(merged: MergedConfig, context: TaskContext) -> list[str]:
    """Give back what the caller named where a profile says something else; returns warnings."""
    insisted: dict[str, Any] = {}
    warnings = []
    for word in CALLER_PRIORITY_KEYS:
        path, wanted = CONTEXT_KEYS[word][1], context.value(word)
        said = value_at(merged.data, path)
        overridden = value_at(context.user_overrides or {}, path) is not None
        if said is not None and wanted is not None and said != wanted and not overridden:
            warnings.append(f"{path} is {wanted}, as asked for, not {said} ({merged.origin(path)})")
            insisted = merge(insisted, nest(path, wanted))
    if insisted:
        merged.add("context", insisted, lambda path: context.origin)
    return warnings


def _credit_caller(merged: MergedConfig, context: TaskContext) -> None:
    """Say of GPUs the caller named that they are the caller's, where a layer passed them on."""
    for word in ("gpu", "total_gpus"):
        name, path = CONTEXT_KEYS[word]
        given = getattr(context, name)
        if given is not None and value_at(merged.data, path) == given and merged.provenance[path] not in CALLER_LAYERS:
            merged.credit(path, "context", context.origin)


def _apply_overrides(merged: MergedConfig, context: TaskContext) -> None:
    """Lay the user's overrides on top, or start again from them."""
    if context.user_overrides is None:
        return
    places: Mapping[str, str] = getattr(context.user_overrides, "places", {})

    def where(path: str) -> str:
        near = (
            place for leaf, place in places.items() if f"{leaf}.".startswith(f"{path}.") or path.startswith(f"{leaf}.")
        )
        return next(near, "")

    replacing = context.override_mode == "replace"
    if context.user_overrides or replacing:
        _add_layer(
            merged, "user_replace" if replacing else "user_patch", context.user_overrides, where, replace_all=replacing
        )
