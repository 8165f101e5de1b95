"""Composition: layers in order, one validated experiment, and for every value the layer it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotuner.config import catalog, selection, yaml_documents
from autotuner.config.advice import warnings_about
from autotuner.config.context import IDENTITY, WORDS, TaskContext
from autotuner.config.facts import check_known, settle
from autotuner.config.finalize import finalize, require
from autotuner.config.gpus import check_gpus
from autotuner.config.inactive import leave_out
from autotuner.config.layers import ConfigLayer
from autotuner.config.merging import CALLER, Merged, dig, leaves, merge, nest
from autotuner.config.schema import check_keys, default_leaves, slo_mapping, validate
from autotuner.errors import ConfigError, unknown
from autotuner.experiment import Experiment

SLO = "--slo"

Where = Callable[[str], str]

_PATCH_REMEDY = "Correct these values."
_REPLACE_REMEDY = (
    "Override mode replace drops what every layer says, so the override must hold all that a run needs; "
    "add what is missing or wrong, or use --override-mode patch."
)


@dataclass(frozen=True)
class Row:
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
    overridden: dict[str, list[Row]]
    reasons: dict[str, str]

    @property
    def notes(self) -> list[str]:
        """What a user should know of the machine's part in this configuration."""
        path = "deployment.mode"
        return [f"deployment {dig(self.data, path)}: {self.reasons[path]}"] if path in self.reasons else []

    def rows(self) -> list[Row]:
        """Every value, with defaults, in the order of the configuration's sections."""
        rows = [Row(path, value, self.provenance[path], self.places[path]) for path, value in leaves(self.data).items()]
        rows += [Row(path, value, "default") for path, value in default_leaves(self.experiment, self.data).items()]
        sections = list(Experiment.model_fields)
        return sorted(rows, key=lambda row: sections.index(row.path.partition(".")[0]))


def compose(context: TaskContext) -> Composition:
    """Compose what `context` asks for; ConfigError says what cannot be used and where it was written."""
    if context.override_mode not in ("patch", "replace"):
        raise ConfigError(
            unknown("override mode", str(context.override_mode), ("patch", "replace")), remedy="Give patch or replace."
        )
    automatic, warnings = catalog.automatic()
    wanted = selection.read(context)
    facts = settle(context, automatic, [*wanted.presets, *wanted.profiles])
    settled, replacing = facts.context, context.replaces
    if not replacing:
        check_known(settled)

    merged = Merged()
    _add_all(merged, (*automatic, *wanted.presets, *wanted.profiles), settled)
    warnings += wanted.warnings
    if replacing:
        _override(merged, context)
        _add_all(merged, wanted.slo, settled)
    else:
        warnings += _insist(merged, settled)
        _add_all(merged, wanted.slo, settled)
        _override(merged, context)
    if isinstance(context.slo_config, Mapping):
        _lay(merged, "slo_config", {"slo": context.slo_config}, lambda path: SLO if context.origin else "")
    warnings += finalize(merged, settled)
    warnings += check_gpus(merged, facts, context.gpu_type)
    _credit(merged, context)
    remedy = _REPLACE_REMEDY if replacing else _PATCH_REMEDY
    experiment = validate(merged, remedy)
    require(merged)
    if left_out := leave_out(merged, experiment):
        warnings += left_out
        experiment = validate(merged, remedy)
    return Composition(
        data=merged.data,
        layers=merged.layers,
        provenance=merged.provenance,
        experiment=experiment,
        warnings=[*warnings, *warnings_about(experiment)],
        places=merged.places,
        overridden={
            path: [Row(path, *earlier) for earlier in reversed(merged.history.get(path, [])[:-1])]
            for path in merged.provenance
        },
        reasons={path: why for path, why in facts.reasons.items() if path in merged.provenance},
    )


def settled(context: TaskContext) -> TaskContext:
    """`context` with the model, engine, deployment and load that overrides, layers and assumptions tell."""
    automatic, _ = catalog.automatic()
    wanted = selection.read(context)
    return settle(context, automatic, [*wanted.presets, *wanted.profiles]).context


def _add_all(merged: Merged, chosen: Sequence[ConfigLayer], context: TaskContext) -> None:
    for layer in chosen:
        if layer.applies(context):
            _lay(merged, layer.name, layer.resolve(context), layer.where)


def _lay(
    merged: Merged, name: str, data: Mapping[str, Any], where: Where = lambda path: "", *, replacing: bool = False
) -> None:
    """Check one layer's keys and lay it on top."""
    plain = yaml_documents.plain(data, "")
    if "slo" in plain:
        plain["slo"] = slo_mapping(plain["slo"])
    check_keys(name, plain, where)
    (merged.replace if replacing else merged.add)(name, plain, where)


def _insist(merged: Merged, context: TaskContext) -> list[str]:
    """Give back what the caller named where a profile says something else; returns warnings."""
    insisted: dict[str, Any] = {}
    warnings = []
    for word in IDENTITY:
        path, wanted = WORDS[word][1], context.word(word)
        said = dig(merged.data, path)
        overridden = dig(context.user_overrides or {}, path) is not None
        if said is not None and wanted is not None and said != wanted and not overridden:
            warnings.append(f"{path} is {wanted}, as asked for, not {said} ({merged.origin(path)})")
            insisted = merge(insisted, nest(path, wanted))
    if insisted:
        merged.add("context", insisted, lambda path: context.origin)
    return warnings


def _credit(merged: Merged, context: TaskContext) -> None:
    """Say of GPUs the caller named that they are the caller's, where a layer passed them on."""
    for word in ("gpu", "total_gpus"):
        name, path = WORDS[word]
        given = getattr(context, name)
        if given is not None and dig(merged.data, path) == given and merged.provenance[path] not in CALLER:
            merged.credit(path, "context", context.origin)


def _override(merged: Merged, context: TaskContext) -> None:
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
        _lay(merged, "user_replace" if replacing else "user_patch", context.user_overrides, where, replacing=replacing)
