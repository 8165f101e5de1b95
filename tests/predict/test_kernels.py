"""Constants of measured kernels, and what stands for those that were not measured."""

from __future__ import annotations

import pytest

from autotuner.predict.hardware import gpus
from autotuner.predict.kernels import kernel, kernel_constants
from autotuner.predict.layout import resolve_dtypes
from autotuner.predict.shape import model_shape


@pytest.mark.parametrize("gpu", sorted(gpus()))
@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm", ""])
def test_every_gpu_and_engine_has_plausible_constants(gpu, engine):
    for kind, name in (
        ("gemm", "bf16"),
        ("gemm", "fp4"),
        ("moe", "int4"),
        ("attention", "decode"),
        ("mla", "mla_decode"),
    ):
        compute, memory, launch = kernel(gpu, engine, kind, name)
        assert 0.9 <= compute <= 8
        assert 0.9 <= memory <= 4
        assert 0.5 <= launch <= 70


def test_of_what_was_not_measured_the_nearest_stands():
    assert kernel("h100_pcie", "vllm", "gemm", "fp8") in {
        kernel(f"{gpu}_sxm", "vllm", "gemm", "fp8") for gpu in ("h100", "h200")
    }
    assert kernel("h100_sxm", "vllm", "mla", "mla_decode") == kernel("h100_sxm", "sglang", "mla", "mla_decode")
    assert kernel("a100_sxm", "vllm", "gemm", "fp8") == kernel("a100_sxm", "vllm", "gemm", "bf16")


def test_a_deeper_model_launches_more_kernels():
    def launch(model):
        shape = model_shape(model)
        return kernel_constants(shape, gpus()["h100_sxm"], resolve_dtypes(shape), "vllm").launch

    assert 1e-4 < launch("llama-3.1-8b") < launch("llama-3.1-70b") < 1e-2
