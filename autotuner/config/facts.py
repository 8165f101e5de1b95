"""Resolves which model, engine, machine and load a composition is for, so that conditions can be tested."""

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
_DETECTION_REASON = "reported by the driver of this machine"


@dataclass(frozen=True)
class ResolvedContext:
    """A context with its open fields filled in; `reasons` says, by dotted path, why the machine chose a value."""

    context: TaskContext
    reasons: Mapping[str, str]


def resolve_context(
    context: TaskContext, automatic: Sequence[ConfigLayer], requested_layers: Sequence[ConfigLayer]
) -> ResolvedContext:
    """Fill the context's open fields from overrides, requested layers, the machine and layers' assumptions.

    A layer that sets the engine can make further layers apply, which can set more, so this is
    repeated until nothing changes; ConfigError after _MAX_ROUNDS.
    """
    current = _fill_assumptions(context, automatic)
    for _ in range(_MAX_ROUNDS):
        applied_data = [layer.resolve(current) for layer in reversed(requested_layers) if layer.applies(current)]
        detected = _fill_from_machine(_fill_from_config(context, applied_data), applied_data)
        filled = _fill_assumptions(detected.context, automatic)
        if filled == current:
            return ResolvedContext(current, detected.reasons)
        current = filled
    changing = ", ".join(layer.name for layer in requested_layers if layer.condition is not None)
    raise ConfigError(
        "The layers contradict each other's conditions.",
        why=f"Each time one is applied, another stops applying ({changing}).",
        remedy="Name the model, runtime and deployment, or remove a condition.",
    )


def check_identity(context: TaskContext) -> None:
    """Refuse an unknown or missing engine, an unknown deployment, or a missing model."""
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
    """Fill in from overrides, the caller and the layers' `data` (last layer first), in order of precedence."""
    overrides = context.user_overrides or {}
    fields: dict[str, Any] = {}
    for key, (name, path) in CONTEXT_KEYS.items():
        layer_values = [value_at(layer, path) for layer in data]
        caller_value = getattr(context, name)
        values = (
            [value_at(overrides, path), caller_value, *layer_values]
            if key in CALLER_PRIORITY_KEYS
            else [value_at(overrides, path), *layer_values, caller_value]
        )
        value = next((value for value in values if value is not None), None)
        fields[name] = as_gpu_name(value) if key == "gpu" else value
    return replace(context, **fields)


def _fill_from_machine(context: TaskContext, data: Sequence[Mapping[str, Any]]) -> ResolvedContext:
    """Fill in deployment and GPUs from the machine where nothing else sets them."""
    machine, runtime, reasons = context.machine, context.base_runtime, dict[str, str]()
    if machine is None or not isinstance(runtime, str):  # one that a file gives may be anything; it is refused later
        return ResolvedContext(context, reasons)
    sources = [context.user_overrides or {}, *data]
    if context.deployment_mode is None and not context.replaces_layers:
        executable = next((value for layer in sources if (value := value_at(layer, "runtime.executable"))), None)
        if choice := machine.deployment(runtime, executable if isinstance(executable, str) else None):
            mode, reasons["deployment.mode"] = choice
            context = replace(context, deployment_mode=mode)
    if context.gpu_type is None or context.total_gpus is None:
        indexes = next((value for layer in sources if (value := value_at(layer, "hardware.gpus"))), ())
        gpu_indexes = indexes if isinstance(indexes, list | tuple) else ()
        gpu_type, count = machine.gpus(runtime, context.deployment_mode or "", gpu_indexes)
        if context.gpu_type is None and gpu_type is not None:
            context = replace(context, gpu_type=gpu_type)
            reasons["hardware.gpu_type"] = _DETECTION_REASON
        if context.total_gpus is None and count is not None:
            context = replace(context, total_gpus=count)
            reasons["hardware.total_gpus"] = _DETECTION_REASON
    return ResolvedContext(context, reasons)


def _fill_assumptions(context: TaskContext, automatic: Sequence[ConfigLayer]) -> TaskContext:
    """Fill fields that are still open with the assumptions of the applying layers, in order."""
    for layer in automatic:
        if layer.applies(context):
            fields: Mapping[str, Any] = {
                name: layer.assumed_value(key)
                for key, (name, _) in CONTEXT_KEYS.items()
                if context.value(key) is None and layer.assumed_value(key) is not None
            }
            context = replace(context, **fields)
    return context
