"""The shape of a model, from the bundled catalogue or any config.json."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from autotuner.errors import ConfigError, unknown_name_message
from autotuner.predict.architectures import read_layers
from autotuner.predict.geometry import Attention, FeedForward
from autotuner.predict.quantization import read_dtypes

CATALOGUE = Path(__file__).with_name("catalogue.yaml")
DEFAULT_MODEL = "llama-3.1-8b"
DTYPE_BYTES = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.515625, "fp4": 0.5625}
"""Bytes per weight; four-bit types carry a scale per group (2 bytes per 128, 1 byte per 16)."""


ORIGINAL_FILE_REMEDY = "Take the file as the model's publisher wrote it."
DTYPE_BY_SUFFIX = {
    "fp8": "fp8",
    "nvfp4": "fp4",
    "fp4": "fp4",
    "int4": "int4",
    "awq": "int4",
    "gptq": "int4",
    "bf16": "bf16",
}
"""Weight dtype by the suffix of a checkpoint's name, where only its base model is bundled."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes that determine a decoder's memory and work; counts of weights are for the whole model.

    `weight_dtype` is that of the layers' matrices, `expert_dtype` that of the experts' alone
    and `attention_dtype` that of the attention projections; embeddings and the head stay in bf16.
    `draft_layers` are those of a multi-token predictor in the checkpoint, counted nowhere else.
    """

    name: str
    architecture: str
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_model_len: int
    attentions: tuple[Attention, ...]
    feed_forwards: tuple[FeedForward, ...]
    tied_embeddings: bool = False
    weight_dtype: str = "bf16"
    expert_dtype: str = "bf16"
    attention_dtype: str = "bf16"
    draft_layers: int = 0

    @property
    def attention_proj_weights(self) -> int:
        """Weights of all attention and state-space projections."""
        return sum(kind.layers * kind.weights for kind in self.attentions)

    @property
    def mlp_weights(self) -> int:
        """Weights of the feed-forward layers that every token passes through, routers and shared experts included."""
        return sum(kind.layers * (kind.weights + kind.router_weights) for kind in self.feed_forwards)

    @property
    def expert_weights(self) -> int:
        return sum(kind.layers * kind.experts * kind.expert_weights for kind in self.feed_forwards)

    @property
    def experts(self) -> int:
        """Routed experts of one mixture-of-experts layer; 0 for a dense model."""
        return max((kind.experts for kind in self.feed_forwards), default=0)

    @property
    def moe_layers(self) -> int:
        return sum(kind.layers for kind in self.feed_forwards if kind.experts)

    @property
    def layer_weights(self) -> int:
        return self.attention_proj_weights + self.mlp_weights + self.expert_weights

    @property
    def embedding_weights(self) -> int:
        """Weights of the embedding and the output head, once where they are tied."""
        return self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)

    @property
    def parameters(self) -> int:
        """All weights of the model, norms included."""
        return self.layer_weights + self.embedding_weights + (2 * self.layers + 1) * self.hidden_size

    @property
    def active_parameters(self) -> int:
        """Weights one token passes through."""
        inactive = sum(
            kind.layers * (kind.experts - kind.active_experts) * kind.expert_weights for kind in self.feed_forwards
        )
        return self.parameters - inactive


def _normalized_name(name: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", name.rsplit("/", 1)[-1].lower()).strip("-")
    return re.sub(r"-(instruct|base|chat|hf|it|v0-1)\b", "", words).removeprefix("meta-")


@cache
def catalogue() -> Mapping[str, Mapping[str, Any]]:
    """The bundled models: name to the fields of their config.json that give the shape."""
    models: dict[str, dict[str, Any]] = yaml.load(
        CATALOGUE.read_text(),
        Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader),
    )
    return {name: {field: _expand(value) for field, value in config.items()} for name, config in models.items()}


def _expand(value: Any) -> Any:
    """Expand lists that the catalogue writes as a repeated pattern or as runs of a value."""
    if not isinstance(value, dict):
        return value
    if "pattern" in value:
        return value["pattern"] * value["times"]
    if "runs" in value:
        return [item for item, count in value["runs"] for _ in range(count)]
    return {field: _expand(inner) for field, inner in value.items()}


@cache
def _names_by_spelling() -> Mapping[str, str]:
    return {_normalized_name(name): name for name in reversed([*catalogue()])}


@cache
def _bundled_shape(name: str) -> ModelShape:
    return shape_from_config(catalogue()[name], name)


def model_shape(id_or_path: str) -> ModelShape:
    """Read the shape of a bundled model, or of the config.json that a path names or contains.

    Raises ConfigError for an unknown name, an unreadable file, an architecture that is not
    modelled, and missing fields.
    """
    name = _names_by_spelling().get(_normalized_name(id_or_path))
    try:
        path = Path(id_or_path).expanduser()
        path = path / "config.json" if path.is_dir() else path
        is_file = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, nobody's home
        raise ConfigError(f"There is no model '{id_or_path[:80]}'.", why=str(error)[:200]) from error
    if is_file:
        return shape_from_config(_read_config(path), id_or_path)
    if path.name == "config.json" or id_or_path.startswith(("/", "./", "../", "~")):
        raise ConfigError(
            f"There is no model at '{id_or_path}'.", remedy="Give a folder with a config.json, or a bundled name."
        )
    if name:
        return _bundled_shape(name)
    base, _, ending = _normalized_name(id_or_path).rpartition("-")
    if ending in DTYPE_BY_SUFFIX and base in _names_by_spelling():
        return _with_weight_dtype(_bundled_shape(_names_by_spelling()[base]), id_or_path, DTYPE_BY_SUFFIX[ending])
    raise ConfigError(
        unknown_name_message("model", id_or_path, catalogue()),
        why="Its shape is neither bundled nor at a path.",
        remedy="Give a folder with its config.json.",
    )


def _with_weight_dtype(shape: ModelShape, name: str, dtype: str) -> ModelShape:
    attention_dtype = "bf16" if dtype == "fp4" and any(kind.is_latent for kind in shape.attentions) else dtype
    return replace(shape, name=name, weight_dtype=dtype, expert_dtype=dtype, attention_dtype=attention_dtype)


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot read {path}.", why=str(error)) from error
    if not isinstance(config, dict):
        raise ConfigError(f"Cannot read {path}.", why="It is not a JSON object.")
    return config


def shape_from_config(config: Mapping[str, Any], name: str) -> ModelShape:
    """The shape from the fields of a config.json; `name` is for messages.

    Raises ConfigError for an architecture that is not modelled, and for missing or invalid fields.
    """
    try:
        shape = _parse_shape(config, name)
        kinds: list[Attention | FeedForward] = [*shape.attentions, *shape.feed_forwards]
        sizes = [size for kind in kinds for size in astuple(kind)]
        if min(sizes) < 0 or min(shape.layers, shape.heads, shape.parameters, shape.max_model_len) < 1:
            raise ValueError("a size is below 0")
    except KeyError as error:
        raise ConfigError(f"The config.json of '{name}' lacks {error.args[0]}.", remedy=ORIGINAL_FILE_REMEDY) from error
    except (TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        why = _invalid_fields(config) or f"{error}."
        raise ConfigError(
            f"The config.json of '{name}' does not describe a decoder.", why=why, remedy=ORIGINAL_FILE_REMEDY
        ) from error
    return shape


def _invalid_fields(config: Mapping[str, Any]) -> str:
    """Name the fields whose type differs from that in every bundled model, or that are below 0."""
    types: dict[str, set[type]] = {}
    for bundled in catalogue().values():
        for field, value in bundled.items():
            types.setdefault(field, set()).add(type(value))
    text_config = config.get("text_config")
    invalid = []
    for field, value in {**config, **(text_config if isinstance(text_config, dict) else {})}.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if field in types and (type(value) not in types[field] or (is_number and value < 0)):
            invalid.append(f"{field} is {json.dumps(value, default=str)[:40]}")
    return f"{', '.join(invalid)}." if invalid else ""


def _parse_shape(config: Mapping[str, Any], name: str) -> ModelShape:
    """The shape from a model's config.json; that of the language model where it is multimodal."""
    text = {**config, **config["text_config"]} if isinstance(config.get("text_config"), dict) else config
    if config.get("architectures"):
        text = {**text, "architectures": config["architectures"]}
    architecture, attentions, feed_forwards = read_layers(text, name)
    weight_dtype, expert_dtype, attention_dtype = read_dtypes(
        text, name, has_latent_attention=any(kind.is_latent for kind in attentions)
    )
    softmax = max(attentions, key=lambda kind: (kind.heads, kind.kv_heads))
    kinds: list[Attention | FeedForward] = [*attentions, *feed_forwards]
    return ModelShape(
        name=name,
        architecture=architecture,
        layers=text.get("num_hidden_layers") or sum(kind.layers for kind in kinds),
        hidden_size=text["hidden_size"],
        heads=text["num_attention_heads"],
        kv_heads=softmax.kv_heads,
        head_dim=softmax.value_dim,
        vocab_size=text["vocab_size"],
        max_model_len=text["max_position_embeddings"],
        attentions=attentions,
        feed_forwards=feed_forwards,
        tied_embeddings=bool(text.get("tie_word_embeddings", False)),
        weight_dtype=weight_dtype,
        expert_dtype=expert_dtype,
        attention_dtype=attention_dtype,
        draft_layers=text.get("num_nextn_predict_layers") or text.get("mtp_num_hidden_layers") or 0,
    )
