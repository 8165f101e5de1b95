"""The inventory of GPUs, with and without a driver."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest

from autotuner.launchers import gpus


def test_a_machine_without_a_driver_has_no_gpus_and_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    inventory = gpus.query_inventory()
    assert (list(inventory), len(inventory)) == ([], 0)
    assert "no NVIDIA driver answers" in inventory.reason


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that lists two GPUs, the second one without a figure for its use."""

    def use(handle: int) -> object:
        if handle == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(gpu=25)

    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: b"575.57",
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: "NVIDIA H200",
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=150 << 30, free=140 << 30),
        "nvmlDeviceGetUtilizationRates": use,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)


def test_every_gpu_is_listed_with_its_memory_and_use(driver: None) -> None:
    inventory = gpus.query_inventory()
    assert inventory.driver_version == "575.57"
    assert inventory.reason == ""
    first, second = inventory
    assert first == gpus.InstalledGpu(0, "NVIDIA H200", "GPU-0", 150 << 30, 140 << 30, 0.25)
    assert (second.index, second.utilisation) == (1, None)
