"""Failures told by a single line, in the words of engines, drivers and the Docker Engine."""

from __future__ import annotations

import pytest

from autotuner.core import FailureKind
from autotuner.engines import ENGINES, Phase, engine

DRIVER = (
    "RuntimeError: NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:268, unhandled system error",
    "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1970, ncclUnhandledCudaError",
    "[rank1]:[E ProcessGroupNCCL.cpp:616] [Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=4)",
    "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).",
    "torch.AcceleratorError: CUDA error: unspecified launch failure",
    "RuntimeError: No CUDA GPUs are available",
    "RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG`",
    "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory",
    "Failed to initialize NVML: Driver/library version mismatch",
    "CUDA error 802: system not yet initialized",
    "Unable to determine the device handle for GPU0000:1B:00.0: GPU is lost.",
)
DOCKER = {
    "autotune: docker: No such image: an/image:1": FailureKind.IMAGE_MISSING,
    "autotune: docker: pull access denied for an/image, repository does not exist": FailureKind.IMAGE_MISSING,
    "autotune: docker: manifest for an/image:2 not found: manifest unknown": FailureKind.IMAGE_MISSING,
    'autotune: docker: could not select device driver "nvidia" with capabilities: [[gpu]]': FailureKind.DRIVER_FAULT,
    "autotune: docker: nvidia-container-cli: device error: 99: unknown device: unknown": FailureKind.DRIVER_FAULT,
    "autotune: docker: driver failed programming external connectivity on endpoint x: Bind for 127.0.0.1:80 failed: "
    "port is already allocated": FailureKind.PORT_IN_USE,
}
REAL = sorted(name for name in ENGINES if name != "openai")


@pytest.mark.parametrize("runtime", REAL)
@pytest.mark.parametrize("phase", ["start", "load"])
@pytest.mark.parametrize("line", DRIVER)
def test_a_fault_of_the_driver_or_of_nccl_is_one_in_both_phases(runtime: str, phase: Phase, line: str) -> None:
    failure = engine(runtime).diagnosis.failure(f"INFO 01-01 00:00:00 [a.py:1] loading\n{line}\n", 1, phase)
    assert failure.kind is FailureKind.DRIVER_FAULT
    assert line[:60] in failure.message or failure.message in line


def test_memory_that_ran_out_is_not_taken_for_a_fault_of_nccl() -> None:
    log = "torch.OutOfMemoryError: CUDA out of memory.\nDistBackendError: NCCL error, remote process exited\n"
    assert engine("vllm").diagnosis.failure(log, 1, "load").kind is FailureKind.OUT_OF_MEMORY_UNDER_LOAD


@pytest.mark.parametrize("line", sorted(DOCKER))
def test_what_docker_refuses_is_named(line: str) -> None:
    failure = engine("sglang").diagnosis.failure(f"{line}\n", 125, "start")
    assert failure.kind is DOCKER[line]
    assert failure.remedy


@pytest.mark.parametrize("runtime", REAL)
def test_a_container_out_of_memory_is_told_from_a_gpu_out_of_memory(runtime: str) -> None:
    log = "autotune: Out of memory: the kernel killed the container at its memory limit (OOMKilled)\n"
    failure = engine(runtime).diagnosis.failure(log, 137, "load")
    assert failure.kind is FailureKind.OUT_OF_MEMORY_UNDER_LOAD
    assert "runtime.memory" in failure.remedy
