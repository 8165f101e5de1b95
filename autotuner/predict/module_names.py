"""Which weights of a decoder the patterns of a quantisation configuration name.

Configurations name modules literally, by globs, by regular expressions or by class. Here each layer has the modules of
a usual checkpoint under the usual names, each with its number of weights, and a pattern names those that it matches
under any of them.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from autotuner.predict.geometry import Attention, FeedForward

Kind = Literal["mlp", "expert", "attention", "head", "embedding"]

PREFIXES = ("", "model.", "model.language_model.", "language_model.model.", "backbone.", "model.decoder.")
"""What precedes `layers.N` in the checkpoints of different models."""
_ATTENTION_FOLDERS = ("self_attn", "attention", "attn", "self_attention")
_RECURRENT_FOLDERS = ("linear_attn", "mamba", "mixer")
_MLP_FOLDERS = ("mlp", "ffn", "feed_forward", "block_sparse_moe", "mixer")
_LINEAR_CLASSES = ("linear", "column_parallel_linear", "row_parallel_linear", "qkv_parallel_linear")


@dataclass(frozen=True, slots=True)
class Module:
    """One or several weight matrices that a pattern can name by any of `names`."""

    kind: Kind
    weights: float
    names: tuple[str, ...]


def _full_names(layer: int, folders: Iterable[str], leaves: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        f"{prefix}layers.{layer}.{folder}.{leaf}" for prefix in PREFIXES for folder in folders for leaf in leaves
    )


def decoder_modules(
    config: Mapping[str, Any], attentions: Sequence[Attention], feed_forwards: Sequence[FeedForward]
) -> list[Module]:
    """The modules of all layers, and the embedding and the head.

    Where each layer is either attention or feed-forward, as in Nemotron-H, layers count separately for the two.
    """
    modules = []
    order = _block_order(config, len(attentions), len(feed_forwards))
    for layer, attention in zip(order[0], attentions, strict=False):
        modules += _attention_modules(config, layer, attention)
    for layer, feed_forward in zip(order[1], feed_forwards, strict=False):
        modules += _feed_forward_modules(layer, feed_forward)
    embedding = config["vocab_size"] * config["hidden_size"]
    modules.append(Module("embedding", embedding, ("model.embed_tokens", "embed_tokens", "backbone.embeddings")))
    if not config.get("tie_word_embeddings"):
        modules.append(Module("head", embedding, ("lm_head", "language_model.lm_head", "model.lm_head", "output")))
    return modules


def _block_order(config: Mapping[str, Any], attentions: int, feed_forwards: int) -> tuple[list[int], list[int]]:
    kinds = config.get("layers_block_type") or list(config.get("hybrid_override_pattern") or "")
    if len(kinds) != attentions + feed_forwards:
        return list(range(attentions)), list(range(feed_forwards))
    mixers = ("mamba", "attention", "M", "*")
    return [n for n, kind in enumerate(kinds) if kind in mixers], [
        n for n, kind in enumerate(kinds) if kind not in mixers
    ]


def _attention_modules(config: Mapping[str, Any], layer: int, attention: Attention) -> list[Module]:
    if attention.state_elements:
        leaves = {("in_proj", "in_proj_qkvz", "in_proj_qkv", "in_proj_z"): 2.0, ("out_proj", "o_proj"): 1.0}
        return _shared_out(attention.weights, layer, _RECURRENT_FOLDERS, leaves)
    hidden, heads = config["hidden_size"], attention.heads or 1
    rank = config.get("kv_lora_rank")
    if attention.is_latent and isinstance(rank, int):
        queries, rope = config.get("q_lora_rank") or 0, config.get("qk_rope_head_dim") or 0
        query_size = heads * attention.key_dim
        leaves = {("o_proj", "wo"): float(heads * attention.value_dim * hidden)}
        leaves[("kv_a_proj_with_mqa", "wkv_a", "fused_qkv_a_proj")] = float(hidden * (rank + rope))
        leaves[("kv_b_proj", "wkv_b")] = float(rank * heads * (attention.key_dim - rope + attention.value_dim))
        if queries:
            leaves |= {("q_a_proj", "wq_a"): float(hidden * queries), ("q_b_proj", "wq_b"): float(queries * query_size)}
        else:
            leaves[("q_proj", "wq")] = float(hidden * query_size)
        return _shared_out(attention.weights, layer, _ATTENTION_FOLDERS, leaves)
    key, value = attention.kv_heads * attention.key_dim, attention.kv_heads * attention.value_dim
    leaves = {
        ("q_proj", "qkv_proj", "query_key_value", "wq", "c_attn"): float(heads * attention.key_dim),
        ("k_proj", "qkv_proj", "query_key_value", "wk", "c_attn"): float(key),
        ("v_proj", "qkv_proj", "query_key_value", "wv", "c_attn"): float(value),
        ("o_proj", "dense", "wo", "out_proj", "c_proj"): float(heads * attention.value_dim),
    }
    return _shared_out(attention.weights, layer, (*_ATTENTION_FOLDERS, "mixer"), leaves)


def _shared_out(
    weights: float, layer: int, folders: Iterable[str], leaves: Mapping[tuple[str, ...], float]
) -> list[Module]:
    total = sum(leaves.values()) or 1.0
    return [
        Module("attention", weights * share / total, _full_names(layer, folders, names))
        for names, share in leaves.items()
    ]


_GATES = (("gate_proj", "w1", "gate_up_proj", "up_gate_proj"), ("up_proj", "w3", "gate_up_proj"))
_DOWN = ("down_proj", "w2", "dense_4h_to_h")


def _feed_forward_modules(layer: int, feed_forward: FeedForward) -> list[Module]:
    matrices = (*_GATES, _DOWN)
    if not feed_forward.experts:
        return [
            Module("mlp", feed_forward.weights / 3, _full_names(layer, _MLP_FOLDERS, leaves)) for leaves in matrices
        ]
    shared_folders = [f"{mlp}.{name}" for mlp in _MLP_FOLDERS for name in ("shared_experts", "shared_expert")]
    expert_folders = [f"{mlp}.experts{each}" for mlp in _MLP_FOLDERS for each in ("", ".0")]
    modules = [
        Module("expert", feed_forward.experts * feed_forward.expert_weights / 3, _full_names(layer, folders, leaves))
        for folders, leaves in ((expert_folders, leaves) for leaves in matrices)
    ]
    if feed_forward.weights:
        # A dense MLP beside the experts, as in Gemma 4, counts as a shared expert.
        modules += [
            Module("mlp", feed_forward.weights / 3, _full_names(layer, shared_folders, leaves)) for leaves in matrices
        ]
    return modules


class ModulePatterns:
    """Patterns that name modules: literal names and parts of them, globs, `re:` expressions, and classes of layers.

    A literal name also names what is below it: `lm_head`, `self_attn`, `model.layers.0.mlp`. Those that cannot be
    understood name nothing.
    """

    def __init__(self, patterns: Iterable[Any]) -> None:
        self.names_every_linear = False
        self._names_experts = False
        literals, expressions = set[str](), list[str]()
        for pattern in patterns:
            if not isinstance(pattern, str) or not pattern.strip():
                continue
            text = pattern.strip()
            if text.startswith("re:"):
                expressions.append(text[3:])
            elif any(character in text for character in "*?["):
                glob = fnmatch.translate(text)
                expressions += [glob, fnmatch.translate(text + ".*")]
            elif text.lower() in _LINEAR_CLASSES:
                self.names_every_linear = True
            elif re.fullmatch(r"[A-Z]\w*(Experts|MoE|MLPExperts)", text):
                self._names_experts = True
            else:
                literals.add(_from_layers(text).removesuffix(".weight"))
        self._literals = literals
        self._expressions = _compile_all(expressions)

    def __bool__(self) -> bool:
        return bool(self._literals or self._expressions or self.names_every_linear or self._names_experts)

    def match(self, module: Module) -> bool:
        """Whether a pattern names the module; a class of layers names none here."""
        if self._names_experts and module.kind == "expert":
            return True
        if any(expression.match(name) for expression in self._expressions for name in module.names):
            return True
        return bool(self._literals) and not self._literals.isdisjoint(_parts(module.names))


def _compile_all(expressions: Sequence[str]) -> list[re.Pattern[str]]:
    """The expressions as one where they can be joined; without those that are none."""
    compiled = []
    for expression in expressions:
        try:
            compiled.append(re.compile(expression))
        except re.error:
            continue
    try:
        return [re.compile("|".join(f"(?:{one.pattern})" for one in compiled))] if compiled else []
    except re.error:
        return compiled


def _from_layers(name: str) -> str:
    """A name without what precedes `layers.N`, and an expert's without its number."""
    name = re.sub(r"^.*?(?=\blayers\.\d)", "", name)
    return re.sub(r"\.experts\.\d+", ".experts", name)


@lru_cache(maxsize=4096)
def _parts(names: tuple[str, ...]) -> frozenset[str]:
    """All names of consecutive parts of these names: `a.b`, `a` and `b` of `a.b`."""
    parts = set()
    for words in {tuple(_from_layers(name).split(".")) for name in names}:
        parts |= {".".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, len(words) + 1)}
    return frozenset(parts)
