"""A model's geometry, from the bundled catalogue or any config.json."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from autotuner.errors import ConfigError, unknown

CATALOGUE = Path(__file__).with_name("catalogue.yaml")
DEFAULT_MODEL = "llama-3.1-8b"
DENSE = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Phi3ForCausalLM",
    "GraniteForCausalLM",
    "SmolLM3ForCausalLM",
)
MIXTURE = ("MixtralForCausalLM", "Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM", "MiniMaxM2ForCausalLM")
REQUIRED = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
)
DTYPE_BYTES = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.515625, "fp4": 0.5625}
"""Bytes per weight; four-bit types carry a scale per group (2 bytes per 128, 1 byte per 16)."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes that set a decoder's memory and work; counts of weights are for the whole model.

    A mixture has `moe_layers` of its `layers`; the others are dense. `weight_dtype` is that of
    the layers' matrices; embeddings stay in bf16.
    """

    name: str
    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    max_model_len: int
    tied_embeddings: bool = False
    weight_dtype: str = "bf16"
    experts: int = 0
    experts_per_token: int = 0
    moe_intermediate: int = 0
    shared_intermediate: int = 0
    moe_layers: int = 0

    @property
    def attention_weights(self) -> int:
        """Weights of the attention projections of one layer."""
        return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)

    @property
    def mlp_weights(self) -> int:
        """Weights of the gated MLP of one dense layer."""
        return 3 * self.hidden * self.intermediate

    @property
    def expert_weights(self) -> int:
        """Weights of one expert."""
        return 3 * self.hidden * self.moe_intermediate

    @property
    def shared_weights(self) -> int:
        """Weights of the shared expert and the router of one mixture layer."""
        return 3 * self.hidden * self.shared_intermediate + self.hidden * self.experts

    @property
    def layer_weights(self) -> int:
        """Weights of all layers together, every expert counted."""
        mixture = self.moe_layers * (self.experts * self.expert_weights + self.shared_weights)
        dense = (self.layers - self.moe_layers) * self.mlp_weights
        return self.layers * self.attention_weights + dense + mixture

    @property
    def embedding_weights(self) -> int:
        """Weights of the embedding and the output head, once where they are tied."""
        return self.vocabulary * self.hidden * (1 if self.tied_embeddings else 2)

    @property
    def parameters(self) -> int:
        """All weights of the model, norms included."""
        return self.layer_weights + self.embedding_weights + (2 * self.layers + 1) * self.hidden

    @property
    def active_parameters(self) -> int:
        """Weights one token passes through."""
        idle = self.moe_layers * (self.experts - self.experts_per_token) * self.expert_weights
        return self.parameters - idle


def _plain(name: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", name.rsplit("/", 1)[-1].lower()).strip("-")
    return re.sub(r"-(instruct|base|chat|hf|it|v0-1)\b", "", words).removeprefix("meta-")


@cache
def catalogue() -> Mapping[str, Mapping[str, Any]]:
    """The bundled models: name to the shape's fields of their config.json."""
    loaded: dict[str, dict[str, Any]] = yaml.load(
        CATALOGUE.read_text(),
        Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader),
    )
    return loaded


def model_shape(id_or_path: str) -> ModelShape:
    """Read the shape of a bundled model, or of the config.json that a path names or contains.

    Raises ConfigError for an unknown name, an unreadable file, an architecture that is not
    modelled, and missing fields.
    """
    path = Path(id_or_path).expanduser()
    if path.is_dir():
        path = path / "config.json"
    if path.is_file():
        return shape_of(_read(path), id_or_path)
    if path.name == "config.json" or id_or_path.startswith(("/", "./", "../", "~")):
        raise ConfigError(
            f"There is no model at '{id_or_path}'.", remedy="Give a folder with a config.json, or a bundled name."
        )
    for name, config in catalogue().items():
        if _plain(name) == _plain(id_or_path):
            return shape_of(config, name)
    raise ConfigError(
        unknown("model", id_or_path, catalogue()),
        why="Its shape is neither bundled nor at a path.",
        remedy="Give a folder with its config.json.",
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot read {path}.", why=str(error)) from error
    if not isinstance(config, dict):
        raise ConfigError(f"Cannot read {path}.", why="It is not a JSON object.")
    return config


def shape_of(config: Mapping[str, Any], name: str) -> ModelShape:
    """Read the shape from the fields of a config.json; `name` is for messages."""
    architecture = _architecture(config, name)
    mixture = _mixture(config, name) if architecture in MIXTURE else {}
    _require(config, REQUIRED, name)
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    window = config.get("sliding_window")
    if config.get("use_sliding_window", True) and window and window < config["max_position_embeddings"]:
        raise ConfigError(f"Model '{name}' uses sliding-window attention.", why="Only full attention is modelled.")
    return ModelShape(
        name=name,
        architecture=architecture,
        layers=config["num_hidden_layers"],
        hidden=hidden,
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or hidden // heads,
        intermediate=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        max_model_len=config["max_position_embeddings"],
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        weight_dtype=_weight_dtype(config, name),
        **mixture,
    )


def _architecture(config: Mapping[str, Any], name: str) -> str:
    architectures = config.get("architectures")
    if not architectures:
        raise ConfigError(f"The config of '{name}' lacks: architectures.")
    architecture = str(architectures[0])
    if architecture not in DENSE + MIXTURE:
        raise ConfigError(unknown("architecture", architecture, DENSE + MIXTURE), why=f"Model '{name}' has it.")
    return architecture


def _require(config: Mapping[str, Any], fields: tuple[str, ...], name: str) -> None:
    missing = [field for field in fields if config.get(field) is None]
    if missing:
        raise ConfigError(f"The config of '{name}' lacks: {', '.join(missing)}.")
    wrong = [field for field in fields if not isinstance(config[field], int) or config[field] <= 0]
    if wrong:
        raise ConfigError(f"The config of '{name}' needs positive whole numbers for: {', '.join(wrong)}.")


def _mixture(config: Mapping[str, Any], name: str) -> dict[str, int]:
    count = "num_local_experts" if "num_local_experts" in config else "num_experts"
    own_size = "moe_intermediate_size" in config or str(config["architectures"][0]).startswith("Qwen")
    size = "moe_intermediate_size" if own_size else "intermediate_size"
    _require(config, (*REQUIRED, count, "num_experts_per_tok", size), name)
    layers, every = config["num_hidden_layers"], config.get("decoder_sparse_step") or 1
    dense = set(config.get("mlp_only_layers") or ())
    return {
        "experts": config[count],
        "experts_per_token": config["num_experts_per_tok"],
        "moe_intermediate": config[size],
        "shared_intermediate": config.get("shared_expert_intermediate_size") or 0,
        "moe_layers": sum((layer + 1) % every == 0 and layer not in dense for layer in range(layers)),
    }


def _weight_dtype(config: Mapping[str, Any], name: str) -> str:
    quantization = config.get("quantization_config")
    if not quantization:
        return "bf16"
    method = str(quantization.get("quant_method") or quantization.get("quant_algo") or "").lower()
    algorithm = str(quantization.get("quant_algo") or "").lower()
    if "fp8" in (method, algorithm):
        return "fp8"
    if "nvfp4" in (method, algorithm) or "mxfp4" in (method, algorithm):
        return "fp4"
    bits = {4: "int4", 8: "int8"}.get(quantization.get("bits") or quantization.get("w_bit") or 0)
    if method in ("gptq", "awq") and bits:
        return bits
    raise ConfigError(f"The quantisation '{method}' of model '{name}' is not modelled.", why="bits or type unknown.")
