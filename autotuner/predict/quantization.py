"""The formats of a checkpoint's weights, from its quantization_config and the files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from autotuner.predict.geometry import Attention, FeedForward
from autotuner.predict.module_names import Kind, Module, ModulePatterns, decoder_modules

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How a weight is stored: the type that engines compute with, its bits, and its bytes with its share of scales."""

    dtype: str
    bits: int
    size: float


UNKNOWN_QUANTISATION = "rough: unknown quantisation"
"""How the note on a method that is not known begins."""

BF16 = WeightFormat("bf16", 16, 2.0)
FP8 = WeightFormat("fp8", 8, 1.0)
INT8 = WeightFormat("int8", 8, 1.0)
INT4 = WeightFormat("int4", 4, 0.515625)
NVFP4 = WeightFormat("fp4", 4, 0.5625)
MXFP4 = WeightFormat("fp4", 4, 0.53125)
MXFP8 = WeightFormat("fp8", 8, 1.03125)


@dataclass(frozen=True)
class WeightFormats:
    """The format of each kind of weights, where it was read, and what of it is rough.

    A kind with several formats has the type of most of its weights and the mean size of all.
    """

    mlp: WeightFormat = BF16
    expert: WeightFormat = BF16
    attention: WeightFormat = BF16
    head: WeightFormat = BF16
    embedding: WeightFormat = BF16
    source: str = "no quantization_config"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Scheme:
    """What a configuration says: the usual format, that of what patterns name, and what stays in 16 bit.

    `groups` are in the order in which they are looked up; `ignored` is None where the configuration does not say.
    """

    default: WeightFormat
    source: str
    groups: tuple[tuple[ModulePatterns, WeightFormat], ...] = ()
    ignored: ModulePatterns | None = None
    only_experts: bool = False
    quantizes_head: bool = False
    notes: tuple[str, ...] = field(default=())


# formats


def _integer(bits: int, group_size: Any = None, *, has_zeros: bool = False) -> WeightFormat:
    """An integer format with a 16-bit scale per group, and a zero point of the weights' own width."""
    dtype = "int4" if bits <= 4 else "int8" if bits <= 8 else "bf16"
    if bits > 8:
        return BF16
    group = group_size if isinstance(group_size, int) and group_size > 0 else 0
    overhead = (16 + (bits if has_zeros else 0)) / group if group else 0.0
    return WeightFormat(dtype, bits, (bits + overhead) / 8)


def _number(value: Any) -> int | None:
    """A whole number, or the text of one."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,4}", value.strip()):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _float(bits: int, group_size: int | None, *, is_mx: bool = False) -> WeightFormat | None:
    if bits == 4:
        return MXFP4 if is_mx or group_size == 32 else NVFP4
    if bits == 8:
        return MXFP8 if is_mx or group_size == 32 else FP8
    return BF16 if bits >= 16 else None


ALGORITHMS: Sequence[tuple[str, WeightFormat]] = (
    ("nvfp4", NVFP4),
    ("mxfp4", MXFP4),
    ("mxfp8", MXFP8),
    ("mx_fp4", MXFP4),
    ("mx_fp", MXFP4),
    ("nv_fp", NVFP4),
    ("fp4", NVFP4),
    ("w4a16_awq", INT4),
    ("w4a8", INT4),
    ("int4", INT4),
    ("w4a16", INT4),
    ("w4", INT4),
    ("nf4", INT4),
    ("fp8", FP8),
    ("float8", FP8),
    ("float-quantized", FP8),
    ("w8a16", INT8),
    ("w8a8", INT8),
    ("int8", INT8),
    ("int-quantized", INT8),
    ("w8", INT8),
    ("eetq", INT8),
)
"""Formats by a word in the name of an algorithm, of a method or a format; the first that is weight_format counts."""


def _by_name(name: Any) -> WeightFormat | None:
    text = str(name or "").lower()
    return next((weight_format for word, weight_format in ALGORITHMS if word in text), None)


# readers of the methods


def _ignored(config: Config, *fields: str) -> ModulePatterns | None:
    """The patterns of what is left in 16 bit, None where no field says so; modelopt calls an empty list None too."""
    given = [config[name] for name in fields if name in config]
    lists = [value for value in given if isinstance(value, list)]
    return ModulePatterns(item for value in lists for item in value) if lists else None


_IGNORED_FIELDS = (
    "ignore",
    "exclude_modules",
    "exclude",
    "ignored_layers",
    "modules_to_not_convert",
    "llm_int8_skip_modules",
    "modules_to_not_quantize",
)


def _compressed_tensors(config: Config) -> _Scheme | None:
    """`config_groups`: each group of modules has its own scheme; without them only a format's name is known."""
    groups = config.get("config_groups")
    ignored = _ignored(config, *_IGNORED_FIELDS)
    entries = list(groups.values()) if isinstance(groups, Mapping) else groups if isinstance(groups, list) else []
    read: list[tuple[ModulePatterns, WeightFormat]] = []
    notes: list[str] = []
    for entry in (entry for entry in entries if isinstance(entry, Mapping)):
        targets = entry.get("targets")
        patterns = ModulePatterns(targets if isinstance(targets, list) else [targets or "Linear"])
        weights = entry.get("weights")
        if not isinstance(weights, Mapping):
            read.append((patterns, BF16))  # only activations are quantised
            continue
        weight_format = _group_format(weights, str(entry.get("format") or config.get("format") or ""))
        if weight_format is None:
            notes.append(f"rough: weights of {weights.get('num_bits')} bits in config_groups are taken as 16 bit")
        read.append((patterns, weight_format or BF16))
    if read:
        linear = next((weight_format for patterns, weight_format in read if patterns.names_every_linear), BF16)
        named = tuple((patterns, weight_format) for patterns, weight_format in read if not patterns.names_every_linear)
        return _Scheme(linear, "config_groups", named, ignored or ModulePatterns(()), notes=tuple(notes))
    name = str(config.get("format") or "").lower()
    if "mxfp4" in name:
        return _Scheme(MXFP4, f"format {name}", ignored=ignored, only_experts=True)
    if "pack-quantized" in name and "nvfp4" not in name:
        return _Scheme(INT4, f"format {name}", ignored=ignored, only_experts=True)
    weight_format = _by_name(name)
    return None if weight_format is None else _Scheme(weight_format, f"format {name}", ignored=ignored)


def _group_format(weights: Config, format_name: str) -> WeightFormat | None:
    bits, group = _number(weights.get("num_bits")), _number(weights.get("group_size"))
    if bits is None:
        return None
    if str(weights.get("type") or "int").lower().startswith("float"):
        return _float(bits, group, is_mx="mx" in format_name.lower())
    return _integer(bits, group, has_zeros=weights.get("symmetric") is False)


def _modelopt(config: Config) -> _Scheme | None:
    """`quant_algo`, with a list of modules where it is mixed; MLA and the head are mostly excluded."""
    layers, ignored = config.get("quantized_layers"), _ignored(config, *_IGNORED_FIELDS)
    if isinstance(layers, Mapping) and layers:
        by_format: dict[WeightFormat, list[str]] = {}
        for name, entry in layers.items():
            algorithm = entry.get("quant_algo") if isinstance(entry, Mapping) else entry
            by_format.setdefault(_by_name(algorithm) or BF16, []).append(str(name))
        groups = tuple((ModulePatterns(names), weight_format) for weight_format, names in by_format.items())
        rest = FP8 if str(config.get("quant_method") or "").lower() == "fp8" else BF16
        return _Scheme(rest, "quantized_layers", groups, ignored or ModulePatterns(()))
    if isinstance(config.get("config_groups"), Mapping):
        return _compressed_tensors(config)
    algorithm = str(config.get("quant_algo") or config.get("quant_method") or "").lower()
    if "mixed_precision" in algorithm:
        return _Scheme(FP8, "quant_algo MIXED_PRECISION", ignored=ignored)
    weight_format = _by_name(algorithm)
    if weight_format is None:
        return None
    if weight_format is INT4 and (group := _number(config.get("group_size"))):
        weight_format = _integer(4, group)
    return _Scheme(
        weight_format, f"quant_algo {config.get('quant_algo') or config.get('quant_method')}", ignored=ignored
    )


def _gptq_or_awq(config: Config) -> _Scheme | None:
    """`bits` and `group_size`; zero points are stored for each group; GPTQModel's `dynamic` differs by module."""
    bits = _number(config.get("bits")) or _number(config.get("w_bit")) or 4
    group_sizes = [config[name] for name in ("group_size", "q_group_size") if config.get(name) is not None]
    group = _number(group_sizes[0]) if group_sizes else 128
    groups = []
    excluded: list[str] = []
    dynamic = config.get("dynamic")
    for pattern, entry in dynamic.items() if isinstance(dynamic, Mapping) else ():
        text = str(pattern)
        if text.startswith("-:"):
            excluded.append("re:" + text[2:])
        elif isinstance(entry, Mapping):
            own_bits = _number(entry.get("bits")) or bits
            own = _integer(own_bits, _number(entry.get("group_size")) or group, has_zeros=True)
            groups.append((ModulePatterns(["re:" + text.removeprefix("+:")]), own))
    method = str(config.get("quant_method") or "gptq").lower()
    usual = _integer(bits, group, has_zeros=group is not None)
    ignored = _ignored({**config, "dynamic_excluded": excluded}, *_IGNORED_FIELDS, "dynamic_excluded")
    return _Scheme(usual, method, tuple(groups), ignored, quantizes_head=config.get("lm_head") is True)


def _auto_round(config: Config) -> _Scheme | None:
    """`bits`, `data_type` and `group_size`; `extra_config` has the layers that differ, often in 16 bit."""

    def read(entry: Config) -> WeightFormat:
        bits = _number(entry.get("bits")) or usual_bits
        group = _number(entry.get("group_size")) or _number(config.get("group_size"))
        kind = str(entry.get("data_type") or config.get("data_type") or "int").lower()
        if bits < 16 and ("fp" in kind or "float" in kind):
            return _float(bits, group, is_mx="mx" in kind) or BF16
        return _integer(bits, group, has_zeros=group is not None)

    usual_bits = _number(config.get("bits")) or 4
    extra = config.get("extra_config")
    groups = [
        (ModulePatterns([name if "*" not in str(name) else f"re:{name}"]), read(entry))
        for name, entry in (extra.items() if isinstance(extra, Mapping) else ())
        if isinstance(entry, Mapping)
    ]
    return _Scheme(read({}), "auto-round", tuple(groups), _ignored(config, *_IGNORED_FIELDS))


def _bitsandbytes(config: Config) -> _Scheme | None:
    """4 bit has a scale per 64 weights, of 32 bits, or about 8 with double quantisation; else it is 8 bit."""
    ignored = _ignored(config, *_IGNORED_FIELDS)
    if config.get("load_in_4bit") or config.get("_load_in_4bit"):
        scale_bits = 8.13 if config.get("bnb_4bit_use_double_quant") else 32
        return _Scheme(WeightFormat("int4", 4, (4 + scale_bits / 64) / 8), "bitsandbytes 4 bit", ignored=ignored)
    return _Scheme(INT8, "bitsandbytes 8 bit", ignored=ignored)


def _fp8(config: Config) -> _Scheme | None:
    """8-bit floats, with a 32-bit scale per block where `weight_block_size` says so."""
    if str(config.get("quant_algo") or "").lower() == "mixed_precision" or config.get("quantized_layers"):
        return _modelopt(config)
    block, usual = config.get("weight_block_size"), FP8
    if isinstance(block, list) and len(block) == 2 and all(_number(size) for size in block):
        usual = replace(FP8, size=1 + 4 / (block[0] * block[1]))
    return _Scheme(usual, "fp8", ignored=_ignored(config, *_IGNORED_FIELDS))


def _mxfp4(config: Config) -> _Scheme | None:
    """4-bit floats of the experts alone, as gpt-oss has them."""
    return _Scheme(MXFP4, "mxfp4", ignored=_ignored(config, *_IGNORED_FIELDS), only_experts=True)


def _quark(config: Config) -> _Scheme | None:
    """`global_quant_config`, `layer_quant_config` by pattern, and `exclude`."""

    def read(entry: Any) -> WeightFormat | None:
        weight = entry.get("weight") if isinstance(entry, Mapping) else None
        weight = weight[0] if isinstance(weight, list) and weight else weight
        if not isinstance(weight, Mapping):
            return BF16 if weight is None and isinstance(entry, Mapping) else None
        dtype, group = str(weight.get("dtype") or "").lower(), _number(weight.get("group_size"))
        if "int4" in dtype or "int8" in dtype:
            return _integer(4 if "int4" in dtype else 8, group, has_zeros=weight.get("symmetric") is False)
        if "fp4" in dtype or "fp8" in dtype:
            return _float(4 if "fp4" in dtype else 8, group, is_mx=group == 32)
        return BF16 if "float16" in dtype else None

    usual = read(config.get("global_quant_config"))
    by_layer = config.get("layer_quant_config")
    groups = [
        (ModulePatterns([pattern]), weight_format)
        for pattern, entry in (by_layer.items() if isinstance(by_layer, Mapping) else ())
        if (weight_format := read(entry)) is not None
    ]
    if usual is None:
        return None
    return _Scheme(usual, "quark", tuple(groups), _ignored(config, *_IGNORED_FIELDS))


def _torchao(config: Config) -> _Scheme | None:
    weight_format = _by_name(str(config.get("quant_type") or ""))
    return (
        None if weight_format is None else _Scheme(weight_format, "torchao", ignored=_ignored(config, *_IGNORED_FIELDS))
    )


READERS = {
    "compressed-tensors": _compressed_tensors,
    "sparseml": _compressed_tensors,
    "modelopt": _modelopt,
    "nvfp4": _modelopt,
    "gptq": _gptq_or_awq,
    "awq": _gptq_or_awq,
    "auto-round": _auto_round,
    "auto_round": _auto_round,
    "inc": _auto_round,
    "bitsandbytes": _bitsandbytes,
    "bnb": _bitsandbytes,
    "mxfp4": _mxfp4,
    "mxfp8": _modelopt,
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "ptpc_fp8": _fp8,
    "quark": _quark,
    "torchao": _torchao,
}
"""Readers by how the name of a method begins, or by what it contains; the first that fits counts."""
BITS_FIELDS = ("bits", "num_bits", "w_bit", "nbits", "weight_bits", "wbits")


def _find_number(config: Config, names: Sequence[str], depth: int = 3) -> int | None:
    """The first of these fields that is a number, in the configuration or one nested in it."""
    direct = next((number for name in names if (number := _number(config.get(name)))), None)
    if direct is not None or depth == 0:
        return direct
    nested = (value for value in config.values() if isinstance(value, Mapping))
    return next((number for value in nested if (number := _find_number(value, names, depth - 1))), None)


def _scheme(config: Config) -> _Scheme:
    """What the configuration says; for a method that is not known, the nearest by its bits or its words."""
    method = str(config.get("quant_method") or config.get("quant_type") or "").lower()
    candidates = [name for name in READERS if method.startswith(name)] or [name for name in READERS if name in method]
    if not method and config.get("config_groups"):
        candidates = ["compressed-tensors"]
    elif not method and config.get("quant_algo"):
        candidates = ["modelopt"]
    elif not method and any(_number(config.get(name)) for name in ("bits", "w_bit")):
        candidates = ["gptq"]
    elif not method and (config.get("load_in_4bit") or config.get("load_in_8bit")):
        candidates = ["bitsandbytes"]
    scheme = READERS[candidates[0]](config) if candidates else None
    return scheme or _rough_scheme(config, method)


def _rough_scheme(config: Config, method: str) -> _Scheme:
    """A reading of a method that is not known: by bits, else by a word in its names, else 16 bit."""
    words = " ".join(str(config.get(name) or "") for name in ("quant_method", "quant_algo", "format", "quant_type"))
    bits, weight_format = _find_number(config, BITS_FIELDS), _by_name(words)
    if bits is not None:
        group = _find_number(config, ("group_size", "q_group_size"))
        weight_format = FP8 if bits == 8 and weight_format is FP8 else _integer(bits, group)
    if weight_format is None and isinstance(weights := config.get("weights"), str):
        weight_format = _by_name(weights)
    if weight_format is None and (digits := re.search(r"(?<!\d)([2-8])[ _-]?bit", str(dict(config)).lower())):
        weight_format = _integer(int(digits[1]))
    label = method or words.strip() or "without a method"
    taken = f"{(weight_format or BF16).bits} bit"
    note = f"{UNKNOWN_QUANTISATION} {label} read as {taken}"
    return _Scheme(weight_format or BF16, label, ignored=_ignored(config, *_IGNORED_FIELDS), notes=(note,))


# the whole


def quantization_of(config: Config, sidecar: Config | None = None) -> Config | None:
    """The quantization_config, completed from the file beside it where the configuration lacks what that has."""
    given = next((config[name] for name in ("quantization_config", "compression_config") if config.get(name)), None)
    if isinstance(given, str):
        given = {"quant_method": given}
    if isinstance(given, list):
        given = next((item for item in given if isinstance(item, Mapping)), None)
    beside = sidecar.get("quantization", sidecar) if sidecar else None
    if not isinstance(beside, Mapping):
        beside = None
    if isinstance(given, Mapping):
        return {**(beside or {}), **given} if beside else given
    return beside


def read_formats(
    config: Config,
    attentions: Sequence[Attention],
    feed_forwards: Sequence[FeedForward],
    *,
    sidecar: Config | None = None,
    sidecar_name: str = "",
) -> WeightFormats:
    """The formats of a checkpoint's weights; never an error: what is not known is read roughly, with a note.

    `attentions` and `feed_forwards` are the layers in their order. Published checkpoints leave attention in 16 bit
    where they quantise only the experts, and MLA where they are in NVFP4 and do not say what they leave out.
    """
    quantization = quantization_of(config, sidecar)
    if not quantization:
        is_fp8 = "float8" in str(config.get("torch_dtype") or config.get("dtype") or "")
        usual = FP8 if is_fp8 else BF16
        source = "torch_dtype" if is_fp8 else "no quantization_config"
        return WeightFormats(usual, usual, usual, source=source)
    scheme = _scheme(quantization)
    if sidecar and not config.get("quantization_config"):
        scheme = replace(scheme, source=sidecar_name or scheme.source)
    experts = any(layer.experts for layer in feed_forwards)
    if scheme.only_experts and (experts or scheme.default is not INT4):
        formats = WeightFormats(BF16, scheme.default, BF16)
    elif scheme.ignored is None and not scheme.groups:
        is_latent = any(layer.is_latent for layer in attentions)
        attention = BF16 if scheme.default is NVFP4 and is_latent else scheme.default
        formats = WeightFormats(scheme.default, scheme.default, attention)
    else:
        formats = _by_module(scheme, decoder_modules(config, attentions, feed_forwards))
    if scheme.quantizes_head:
        formats = replace(formats, head=scheme.default)
    if scheme.source != "quantized_layers":
        formats = _with_expert_fields(formats, config, quantization)
    return replace(formats, source=scheme.source, notes=scheme.notes)


def _with_expert_fields(formats: WeightFormats, config: Config, quantization: Config) -> WeightFormats:
    """DeepSeek-V4 names the format of its experts beside the quantisation."""
    if str(config.get("expert_dtype") or "") == "fp4":
        return replace(formats, expert=NVFP4)
    named = _by_name(quantization.get("moe_quant_algo"))
    return replace(formats, expert=named) if named is not None and named.bits == 4 else formats


def _by_module(scheme: _Scheme, modules: Iterable[Module]) -> WeightFormats:
    """The formats of each kind from those of its modules."""
    by_kind: dict[Kind, dict[WeightFormat, float]] = {}
    for module in modules:
        weight_format = _module_format(scheme, module)
        weights = by_kind.setdefault(module.kind, {})
        weights[weight_format] = weights.get(weight_format, 0.0) + module.weights
    means = {kind: _mean(weights) for kind, weights in by_kind.items() if sum(weights.values())}
    return WeightFormats(
        mlp=means.get("mlp", scheme.default),
        expert=means.get("expert", scheme.default),
        attention=means.get("attention", scheme.default),
        head=means.get("head", BF16),
        embedding=means.get("embedding", BF16),
    )


def _module_format(scheme: _Scheme, module: Module) -> WeightFormat:
    if scheme.ignored is not None and scheme.ignored.match(module):
        return BF16
    named = next((weight_format for patterns, weight_format in scheme.groups if patterns.match(module)), None)
    if named is not None:
        return named
    # Methods leave the embedding, and mostly the head, in 16 bit; config_groups of all linear layers have the head.
    if module.kind == "embedding" or (module.kind == "head" and scheme.source != "config_groups"):
        return BF16
    return scheme.default


def _mean(weights: Mapping[WeightFormat, float]) -> WeightFormat:
    """The format of most weights with the mean size of all."""
    usual = max(weights, key=lambda weight_format: weights[weight_format])
    if len(weights) == 1:
        return usual
    return replace(
        usual, size=sum(weight_format.size * count for weight_format, count in weights.items()) / sum(weights.values())
    )
