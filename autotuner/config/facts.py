"""Which model, engine, machine and load a composition is about, so that conditions can be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from autotuner.config import catalog
from autotuner.config.context import IDENTITY, WORDS, TaskContext
from autotuner.config.layers import ConfigLayer
from autotuner.config.merging import dig
from autotuner.errors import ConfigError, unknown

_ROUNDS = 8


def settle(context: TaskContext, automatic: Sequence[ConfigLayer], asked: Sequence[ConfigLayer]) -> TaskContext:
    """Fill the context's open fields from overrides, from the layers asked for, and from what layers assume.

    A layer that says which engine is meant can make other layers apply, which can say more, so
    this is repeated until nothing changes.
    """
    settled = _assume(context, automatic)
    for _ in range(_ROUNDS):
        found = _assume(_told(context, settled, asked), automatic)
        if found == settled:
            return settled
        settled = found
    changing = ", ".join(layer.name for layer in asked if layer.condition is not None)
    raise ConfigError(
        "The layers contradict each other's conditions.",
        why=f"Each time one is applied, another stops applying ({changing}).",
        remedy="Name the model, runtime and deployment, or remove a condition.",
    )


def check_known(context: TaskContext) -> None:
    """Refuse an engine or a deployment that no layer is written for, and an experiment without a model."""
    _check("deployment", str(context.deployment_mode))
    if context.base_runtime is None:
        raise ConfigError(
            "No runtime was named.",
            why=f"Deployment {context.deployment_mode} can mean any engine.",
            remedy=f"Give --runtime, one of: {', '.join(_names('runtime'))}.",
        )
    _check("runtime", str(context.base_runtime))
    if context.model_name is None:
        raise ConfigError(
            "No model was named.",
            why=f"The {context.base_runtime} runtime has no default model.",
            remedy="Give --model with a Hugging Face id or a folder, or set model.id_or_path in a profile.",
        )


def _check(kind: str, name: str) -> None:
    names = _names(kind)
    if name not in names:
        raise ConfigError(unknown(kind, name, names), remedy=f"Give --{kind}, one of: {', '.join(names)}.")


def _names(folder: str) -> list[str]:
    return sorted(name.removesuffix("-defaults") for name in catalog.files(folder))


def _told(context: TaskContext, settled: TaskContext, asked: Sequence[ConfigLayer]) -> TaskContext:
    """Fill in what overrides, the caller and the layers that apply in the `settled` context say, in that order."""
    overrides = context.user_overrides or {}
    data = [layer.resolve(settled) for layer in reversed(asked) if layer.applies(settled)]
    fields: dict[str, Any] = {}
    for word, (name, path) in WORDS.items():
        layers = [dig(layer, path) for layer in data]
        own = getattr(context, name)
        said = [dig(overrides, path), own, *layers] if word in IDENTITY else [dig(overrides, path), *layers, own]
        fields[name] = next((value for value in said if value is not None), None)
    return replace(context, **fields)


def _assume(context: TaskContext, automatic: Sequence[ConfigLayer]) -> TaskContext:
    """Fill what is still open with what the layers that apply assume, in their order."""
    for layer in automatic:
        if layer.applies(context):
            fields: Mapping[str, Any] = {
                name: layer.assumed(word)
                for word, (name, _) in WORDS.items()
                if context.word(word) is None and layer.assumed(word) is not None
            }
            context = replace(context, **fields)
    return context
