"""The shape of a model, from the bundled catalogue or any config.json."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from autotuner.errors import ConfigError, unknown_name_message
from autotuner.input_files import expand_home
from autotuner.predict.architectures import count_attentions, count_feed_forwards, read_layers
from autotuner.predict.checkpoint import CheckpointFiles, read_checkpoint
from autotuner.predict.config_fields import config_fields
from autotuner.predict.geometry import Attention, FeedForward
from autotuner.predict.quantization import (
    BF16,
    INT4,
    INT8,
    NVFP4,
    UNKNOWN_QUANTISATION,
    WeightFormat,
    WeightFormats,
    quantization_of,
    read_formats,
)

CATALOGUE = Path(__file__).with_name("catalogue.yaml")
DEFAULT_MODEL = "llama-3.1-8b"
DTYPE_BYTES = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.515625, "fp4": 0.5625}
"""Bytes per weight; four-bit types carry a scale per group (2 bytes per 128, 1 byte per 16)."""


DTYPE_BITS = {"bf16": 16, "fp8": 8, "int8": 8, "int4": 4, "fp4": 4}

ROUGH = ("rough: unknown", "rough: no architecture", "rough: weights of")
"""How the notes begin that say that a size was guessed."""
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
    `formats` are the checkpoint's, None where its bytes follow from the dtypes; `stored_scale` is how much larger the
    checkpoint is, by its index, than that. `notes` say what was read only roughly.
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
    formats: WeightFormats | None = None
    stored_scale: float = 1.0
    notes: tuple[str, ...] = ()

    @property
    def is_rough(self) -> bool:
        """Whether layers or formats were guessed, so that sizes may be far off."""
        return any(note.startswith(ROUGH) for note in self.notes) and self.stored_scale == 1.0

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


def bundled_config(name: str) -> Mapping[str, Any] | None:
    """The fields of a bundled model, by any spelling of its name, with a weight type at its end or without."""
    spelling = _normalized_name(name)
    base, _, ending = spelling.rpartition("-")
    known = _names_by_spelling().get(spelling)
    if known is None and ending in DTYPE_BY_SUFFIX:
        known = _names_by_spelling().get(base)
    return None if known is None else catalogue()[known]


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
        path = expand_home(id_or_path)
        path = path / "config.json" if path.is_dir() else path
        is_file = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, nobody's home
        raise ConfigError(f"There is no model '{id_or_path[:80]}'.", why=str(error)[:200]) from error
    if is_file:
        return _shape_of_checkpoint(read_checkpoint(path), id_or_path)
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
    usual = WeightFormat(dtype, DTYPE_BITS[dtype], DTYPE_BYTES[dtype])
    attention = BF16 if attention_dtype == "bf16" else usual
    formats = WeightFormats(usual, usual, attention, source=f"the name {name.rsplit('/', 1)[-1]}")
    return replace(
        shape, name=name, weight_dtype=dtype, expert_dtype=dtype, attention_dtype=attention_dtype, formats=formats
    )


def shape_from_config(config: Mapping[str, Any], name: str) -> ModelShape:
    """The shape from the fields of a config.json; `name` is for messages.

    Raises ConfigError for missing and invalid fields.
    """
    return _shape_of_checkpoint(CheckpointFiles(config), name)


def _shape_of_checkpoint(files: CheckpointFiles, name: str) -> ModelShape:
    config = files.config
    try:
        shape = _checked_against_index(_parse_shape(files, name), files)
        kinds: list[Attention | FeedForward] = [*shape.attentions, *shape.feed_forwards]
        sizes = [size for kind in kinds for size in astuple(kind)]
        if min(sizes) < 0 or min(shape.layers, shape.heads, shape.parameters, shape.max_model_len) < 1:
            raise ValueError("a size is below 0")
        if not all(math.isfinite(size) for size in (*sizes, shape.parameters, shape.max_model_len)):
            raise ValueError("a size is infinite")
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
    fields = config_fields(config)[0] if isinstance(config, Mapping) else {}
    invalid = []
    for field, value in fields.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if field in types and (type(value) not in types[field] or (is_number and value < 0)):
            invalid.append(f"{field} is {json.dumps(value, default=str)[:40]}")
    return f"{', '.join(invalid)}." if invalid else ""


def _parse_shape(files: CheckpointFiles, name: str) -> ModelShape:
    """The shape from a model's config.json; that of the language model where it is multimodal."""
    text, notes = config_fields(files.config)
    architecture, (attention_layers, feed_forward_layers), layer_notes = read_layers(text, name)
    attentions, feed_forwards = count_attentions(attention_layers), count_feed_forwards(feed_forward_layers)
    formats = read_formats(
        text, attention_layers, feed_forward_layers, sidecar=files.sidecar, sidecar_name=files.sidecar_name
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
        weight_dtype=formats.mlp.dtype,
        expert_dtype=formats.expert.dtype,
        attention_dtype=formats.attention.dtype,
        draft_layers=text.get("num_nextn_predict_layers") or text.get("mtp_num_hidden_layers") or 0,
        formats=formats,
        notes=(*layer_notes, *notes, *formats.notes),
    )


INDEX_TOLERANCE = 0.05
"""How far the index's size may be from the computed one without being taken instead; chosen by hand.

A multi-token predictor, which engines load only for speculative decoding, is 2% of DeepSeek-V3.
"""
GUESS_TOLERANCE = 0.1
"""How far the size of a guessed format may be from the index's; chosen by hand, for groups of other sizes."""
PLAUSIBLE_INDEX = (0.2, 5.0)
"""Ratios of the index's size to the computed one outside of which the index is of something else; chosen by hand."""


def _checked_against_index(shape: ModelShape, files: CheckpointFiles) -> ModelShape:
    """The shape with the size that the checkpoint's index states, where that differs."""
    if files.index_bytes is None or shape.formats is None:
        return shape
    computed = stored_bytes(shape)
    ratio, source = files.index_bytes / computed, shape.formats.source
    if abs(ratio - 1) <= INDEX_TOLERANCE:
        return replace(shape, formats=replace(shape.formats, source=f"{source}, as in its index"))
    sizes = f"{files.index_bytes / 2**30:.1f} GiB, {source} makes it {computed / 2**30:.1f} GiB"
    is_float32 = "float32" in str(config_fields(files.config)[0].get("torch_dtype") or files.config.get("dtype") or "")
    if is_float32 and not quantization_of(files.config, files.sidecar) and abs(ratio / 2 - 1) <= INDEX_TOLERANCE:
        return replace(shape, formats=replace(shape.formats, source="float32 in its index, loaded in 16 bit"))
    guessed = _format_by_index(shape, files.index_bytes)
    if guessed is not None:
        return guessed
    if not PLAUSIBLE_INDEX[0] <= ratio <= PLAUSIBLE_INDEX[1]:
        note = f"rough: the checkpoint's index says {sizes}: the index is not taken"
        return replace(shape, notes=(*shape.notes, note))
    note = f"the checkpoint's index says {sizes}: that of the index is taken"
    formats = replace(shape.formats, source=f"{source}, size by its index")
    return replace(shape, formats=formats, stored_scale=ratio, notes=(*shape.notes, note))


def _format_by_index(shape: ModelShape, index_bytes: int) -> ModelShape | None:
    """The shape of an unknown quantisation with the format whose size is that of the index, None where none has it."""
    unknown = [note for note in shape.notes if note.startswith(UNKNOWN_QUANTISATION)]
    if not unknown or shape.formats is None:
        return None
    source = f"{shape.formats.source}, index"
    for usual in (INT4, NVFP4, INT8):
        note = f"{unknown[0].partition(' read as')[0]} read as {usual.bits} bit, by the size in its index"
        guessed = replace(
            shape,
            weight_dtype=usual.dtype,
            expert_dtype=usual.dtype,
            attention_dtype=usual.dtype,
            formats=replace(shape.formats, mlp=usual, expert=usual, attention=usual, source=source),
            notes=(*(other for other in shape.notes if other not in unknown), note),
        )
        ratio = index_bytes / stored_bytes(guessed)
        if abs(ratio - 1) <= GUESS_TOLERANCE:
            return replace(guessed, stored_scale=ratio)
    return None


def stored_bytes(shape: ModelShape) -> int:
    """Bytes of the checkpoint's weights, norms left out."""
    formats = shape.formats or WeightFormats()
    layers = shape.attention_proj_weights * formats.attention.size + shape.mlp_weights * formats.mlp.size
    layers += shape.expert_weights * formats.expert.size
    embedding = shape.vocab_size * shape.hidden_size
    ends = embedding * formats.embedding.size + (0 if shape.tied_embeddings else embedding * formats.head.size)
    return int((layers + ends) * shape.stored_scale)
