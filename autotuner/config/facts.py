"""Which model, engine, machine and load a composition is about, so that conditions can be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autotuner.config import catalog
from autotuner.config.context import CALLER_PRIORITY_KEYS, CONTEXT_KEYS, TaskContext
from autotuner.config.gpus import as_gpu_name
from autotuner.config.layers import ConfigLayer
from autotuner.config.merging import value_at
from autotuner.errors import ConfigError, unknown_name_message

_MAX_ROUNDS = 8
_DETECTION_REASON = "the driver of this machine says so"


@dataclass(frozen=True)
class ResolvedContext:
    """A context without open fields, as far as anything tells; `reasons` says why the machine decided a path."""

    context: TaskContext
    reasons: Mapping[str, str]


def resolve_context(
    context: TaskContext, automatic: Sequence[ConfigLayer], requested_layers: Sequence[ConfigLayer]
) -> ResolvedContext:
    """Fill the context's open fields from overrides, layers asked for, the machine, and what layers assume.

    A layer that says which engine is meant can make other layers apply, which can say more, so
    this is repeated until nothing changes.
    """
    settled = _fill_assumptions(context, automatic)
    for _ in range(_MAX_ROUNDS):
        chosen = [layer.resolve(settled) for layer in reversed(requested_layers) if layer.applies(settled)]
        detected = _fill_from_machine(_fill_from_config(context, chosen), chosen)
        filled = _fill_assumptions(detected.context, automatic)
        if filled == settled:
            return ResolvedContext(settled, detected.reasons)
        settled = filled
    changing = ", ".join(layer.name for layer in requested_layers if layer.condition is not None)
    raise ConfigError(
        "The layers contradict each other's conditions.",
        why=f"Each time one is applied, another stops applying ({changing}).",
        remedy="Name the model, runtime and deployment, or remove a condition.",
    )


def check_identity(context: TaskContext) -> None:
    """Refuse an engine or a deployment that no layer is written for, and an experiment without a model."""
    _check_name("deployment", str(context.deployment_mode))
    if context.base_runtime is None:
        raise ConfigError(
            "No runtime was named.",
            why=f"Deployment {context.deployment_mode} can mean any engine.",
            remedy=f"Give --runtime, one of: {', '.join(_layer_names('runtime'))}.",
        )
    _check_name("runtime", str(context.base_runtime))
    if context.model_name is None:
        raise ConfigError(
            "No model was named.",
            why=f"The {context.base_runtime} runtime has no default model.",
            remedy="Give --model with a Hugging Face id or a folder, or set model.id_or_path in a profile.",
        )


def _check_name(kind: str, name: str) -> None:
    names = _layer_names(kind)
    if name not in names:
        raise ConfigError(unknown_name_message(kind, name, names), remedy=f"Give --{kind}, one of: {', '.join(names)}.")


def _layer_names(folder: str) -> list[str]:
    return sorted(name.removesuffix("-defaults") for name in catalog.files_by_name(folder))


def _fill_from_config(context: TaskContext, data: Sequence[Mapping[str, Any]]) -> TaskContext:
    """Fill in what overrides, the caller and the layers' `data`, last layer first, say, in that order."""
    overrides = context.user_overrides or {}
    fields: dict[str, Any] = {}
    for word, (name, path) in CONTEXT_KEYS.items():
        layers = [value_at(layer, path) for layer in data]
        own = getattr(context, name)
        said = (
            [value_at(overrides, path), own, *layers]
            if word in CALLER_PRIORITY_KEYS
            else [value_at(overrides, path), *layers, own]
        )
        value = next((value for value in said if value is not None), None)
        fields[name] = as_gpu_name(value) if word == "gpu" else value
    return replace(context, **fields)


def _fill_from_machine(context: TaskContext, data: Sequence[Mapping[str, Any]]) -> ResolvedContext:
    """Fill in what the machine tells of deployment and GPUs where nothing else does."""
    machine, runtime, reasons = context.machine, context.base_runtime, dict[str, str]()
    if machine is None or runtime is None:
        return ResolvedContext(context, reasons)
    sources = [context.user_overrides or {}, *data]
    if context.deployment_mode is None and not context.replaces_layers:
        executable = next((value for layer in sources if (value := value_at(layer, "runtime.executable"))), None)
        if choice := machine.deployment(runtime, executable if isinstance(executable, str) else None):
            mode, reasons["deployment.mode"] = choice
            context = replace(context, deployment_mode=mode)
    if context.gpu_type is None or context.total_gpus is None:
        indexes = next((value for layer in sources if (value := value_at(layer, "hardware.gpus"))), ())
        named = indexes if isinstance(indexes, list | tuple) else ()
        kind, count = machine.gpus(runtime, context.deployment_mode or "", named)
        if context.gpu_type is None and kind is not None:
            context = replace(context, gpu_type=kind)
            reasons["hardware.gpu_type"] = _DETECTION_REASON
        if context.total_gpus is None and count is not None:
            context = replace(context, total_gpus=count)
            reasons["hardware.total_gpus"] = _DETECTION_REASON
    return ResolvedContext(context, reasons)


def _fill_assumptions(context: TaskContext, automatic: Sequence[ConfigLayer]) -> TaskContext:
    """Fill what is still open with what the layers that apply assume, in their order."""
    for layer in automatic:
        if layer.applies(context):
            fields: Mapping[str, Any] = {
                name: layer.assumed_value(word)
                for word, (name, _) in CONTEXT_KEYS.items()
                if context.value(word) is None and layer.assumed_value(word) is not None
            }
            context = replace(context, **fields)
    return context
