"""Which parallel sizes engines refuse for a model: the only place for these rules, each with its source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from autotuner import model_files
from autotuner.input_files import read_json
from autotuner.predict.architectures import EXPERT_COUNT_FIELDS
from autotuner.predict.config_fields import config_fields
from autotuner.predict.shape import ModelShape, bundled_config

if TYPE_CHECKING:
    from autotuner.experiment import Model

EXPERTS_IN_EQUAL_PARTS = ("sglang", "trtllm", "")
"""Engines whose expert-parallel ranks have equally many experts; an engine that is not named counts among them.

SGLang: `assert num_experts % self.moe_ep_size == 0` in layers/moe/fused_moe_triton/layer.py. TensorRT-LLM: `ep_experts`
in mapping.py gives each rank num_experts // moe_ep_size of them. vLLM: `determine_expert_map` in fused_moe/layer.py
gives the first ranks one more where experts remain.
"""
EXPERTS_WITHIN_TP = ("sglang", "trtllm")
"""Engines that split tp-size into expert-parallel groups.

SGLang: moe_tp_size = tp_size // moe_ep_size in distributed/parallel_state.py. TensorRT-LLM: `moe_tp_size * moe_ep_size`
must be the tensor-parallel size, in mapping.py. vLLM has one switch, which spreads the experts over tp-size x dp-size.
"""


@dataclass(frozen=True)
class ModelDimensions:
    """Counts that parallel sizes must divide, and the vocabulary size; None where they are not known.

    `kv_heads` has each number that a layer has, and none for MLA, whose cache every GPU holds whole.
    """

    heads: int | None = None
    kv_heads: tuple[int, ...] = ()
    layers: int | None = None
    experts: int | None = None
    vocab_size: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelDimensions:
        """The dimensions in a config.json, as far as it has them."""
        fields, _ = config_fields(config)
        heads = _count(fields, "num_attention_heads")
        is_latent = _count(fields, "kv_lora_rank") is not None
        per_layer = fields.get("per_layer", {}).get("num_key_value_heads")
        usual = _count(fields, "num_key_value_heads") or heads
        others = [_count(fields, name) for name in ("num_global_key_value_heads", "swa_num_key_value_heads")]
        kv_heads = per_layer or [usual, *others]
        return cls(
            heads=heads,
            kv_heads=() if is_latent else tuple(dict.fromkeys(count for count in kv_heads if count)),
            layers=_count(fields, "num_hidden_layers"),
            experts=next((count for name in EXPERT_COUNT_FIELDS if (count := _count(fields, name))), None),
            vocab_size=_count(fields, "vocab_size"),
        )

    @classmethod
    def from_shape(cls, shape: ModelShape) -> ModelDimensions:
        """The dimensions of a model whose shape is known."""
        kv_heads = (kind.kv_heads for kind in shape.attentions if kind.cache_elements and not kind.is_latent)
        return cls(shape.heads, tuple(dict.fromkeys(kv_heads)), shape.layers, shape.experts or None, shape.vocab_size)


@lru_cache(maxsize=16)
def local_dimensions(model: Model) -> ModelDimensions:
    """Dimensions of a model that is a folder or in the Hugging Face cache; none are known of any other."""
    path = model_files.config_file(model)
    try:
        data = read_json(path) if path else {}
    except (OSError, ValueError, RecursionError):
        data = {}
    return ModelDimensions.from_config(data) if isinstance(data, dict) else ModelDimensions()


def model_dimensions(model: Model) -> ModelDimensions:
    """Dimensions of a model that is on this machine or bundled; none are known of any other."""
    config = None if model_files.is_path(model.id_or_path) else bundled_config(model.id_or_path)
    if config is not None and model_files.config_file(model) is None:
        return ModelDimensions.from_config(config)
    return local_dimensions(model)


def _count(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


@dataclass(frozen=True)
class ParallelSizes:
    """The sizes as they are given to an engine; `attention_dp` replicas of the attention share the GPUs of `tp`.

    Experts are split over `expert_gpus`, `tp` where that is 0.
    """

    tp: int = 1
    pp: int = 1
    ep: int = 1
    attention_dp: int = 1
    expert_gpus: int = 0


@dataclass(frozen=True)
class SizeNames:
    """What the sizes are called in the reasons."""

    tp: str = "tp-size"
    pp: str = "pp-size"
    ep: str = "ep-size"
    dp: str = "dp-size"


def refusals(
    model: ModelDimensions, engine: str, sizes: ParallelSizes, names: SizeNames | None = None
) -> Iterator[str]:
    """A reason for each of the sizes that the engine refuses for the model."""
    names = names or SizeNames()
    tp, given = sizes.tp // sizes.attention_dp or 1, f"{names.tp} {sizes.tp}"
    if sizes.attention_dp > 1:
        # SGLang: `assert self.tp_size % self.dp_size == 0` in server_args.py, and layers/dp_attention.py splits heads
        # over tp_size // dp_size. TensorRT-LLM: attention data parallelism splits no heads at all.
        if sizes.tp % sizes.attention_dp:
            yield f"{given} is not a multiple of {names.dp} {sizes.attention_dp}, over which it is split"
            return
        given = f"{names.tp} {sizes.tp} / {names.dp} {sizes.attention_dp}"
    # vLLM: verify_with_parallel_config in config/model.py. SGLang: `assert total_num_heads % attn_tp_size == 0` in the
    # models. TensorRT-LLM: `assert self.num_heads % tp_size == 0` in modules/attention.py.
    if model.heads and model.heads % tp:
        yield f"{model.heads} attention heads are not divisible by {given}"
    else:
        # All three copy key-value heads where there are fewer than GPUs, a whole number of times: vLLM's
        # QKVParallelLinear divides either way, SGLang's models assert either, TensorRT-LLM's duplicate_kv_weight.
        for kv_heads in model.kv_heads:
            if kv_heads % tp and tp % kv_heads:
                yield f"{kv_heads} key-value heads and {given} do not divide one another"
                break
    # Layers need not divide: vLLM's get_pp_indices and SGLang's give some stages one layer more, TensorRT-LLM's
    # Mapping.pp_layers the first ones (torch.tensor_split). A stage without layers is refused or fails.
    if model.layers and sizes.pp > model.layers:
        yield f"{model.layers} layers are fewer than {names.pp} {sizes.pp}"
    yield from _expert_refusals(model, engine, sizes, names)


def _expert_refusals(model: ModelDimensions, engine: str, sizes: ParallelSizes, names: SizeNames) -> Iterator[str]:
    if sizes.ep <= 1:
        return
    if model.experts and sizes.ep > model.experts:
        yield f"{model.experts} experts are fewer than {names.ep} {sizes.ep}"
    elif model.experts and engine in EXPERTS_IN_EQUAL_PARTS and model.experts % sizes.ep:
        yield f"{model.experts} experts are not divisible by {names.ep} {sizes.ep}"
    elif engine in EXPERTS_WITHIN_TP and (gpus := sizes.expert_gpus or sizes.tp) % sizes.ep:
        yield f"{names.tp} {gpus} is not a multiple of {names.ep} {sizes.ep}, over which its experts are split"
