"""The dtypes of a checkpoint's weights, from its quantization_config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotuner.errors import ConfigError

FOUR_BIT_FLOATS = ("nvfp4", "mxfp4", "fp4")


def read_dtypes(config: Mapping[str, Any], name: str, *, has_latent_attention: bool) -> tuple[str, str, str]:
    """Dtypes of the MLP, the experts and the attention projections.

    Published four-bit checkpoints of MLA models leave attention in bf16, and those with only their
    experts in four bits leave everything else unquantised.
    """
    quantization = config.get("quantization_config")
    if not quantization:
        return "bf16", "bf16", "bf16"
    words = " ".join(str(quantization.get(key) or "") for key in ("quant_method", "quant_algo", "format")).lower()
    experts = {"fp4": "fp4"}.get(str(config.get("expert_dtype") or ""))
    if str(quantization.get("moe_quant_algo") or "").lower() in FOUR_BIT_FLOATS:
        experts = "fp4"
    if "mxfp4" in words:
        return "bf16", "fp4", "bf16"
    if "nvfp4" in words:
        return "fp4", "fp4", "bf16" if has_latent_attention else "fp4"
    if "fp8" in words or "mixed_precision" in words:
        return "fp8", experts or "fp8", "fp8"
    if "pack-quantized" in words:
        return "bf16", "int4", "bf16"
    bits = {4: "int4", 8: "int8"}.get(quantization.get("bits") or quantization.get("w_bit") or 0)
    if bits and ("gptq" in words or "awq" in words):
        return bits, bits, bits
    raise ConfigError(
        f"The quantisation '{words.strip()}' of model '{name}' is not modelled.", why="bits or type unknown."
    )
