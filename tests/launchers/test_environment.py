"""The environment that is recorded with a run: host, GPUs, engine and model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest

from autotuner.core import ServerSpec
from autotuner.experiment import Model
from autotuner.launchers.environment import host_environment, launch_environment

SPEC = ServerSpec("image:1", ("/opt/vllm", "serve"), {}, (), 8000, "/health", "m", devices=(1,))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver of two GPUs that does not tell memory clocks."""

    def clock(gpu: int, kind: int) -> int:
        if kind == pynvml.NVML_CLOCK_MEM:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return 1500 + gpu

    for name, answer in {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: b"575.57",
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda gpu: "NVIDIA H200",
        "nvmlDeviceGetUUID": lambda gpu: f"GPU-{gpu}",
        "nvmlDeviceGetMemoryInfo": lambda gpu: SimpleNamespace(total=150 << 30),
        "nvmlDeviceGetEnforcedPowerLimit": lambda gpu: 700_000,
        "nvmlDeviceGetMaxClockInfo": lambda gpu, kind: 1980,
        "nvmlDeviceGetClockInfo": clock,
    }.items():
        monkeypatch.setattr(pynvml, name, answer)


def test_a_host_is_described_with_its_gpus(driver: None) -> None:
    host = host_environment()
    assert all(host[name] for name in ("autotune", "python", "host", "system", "kernel", "cpu"))
    assert host["cpu_cores"] >= 1
    assert host["memory_bytes"] > 2**30
    assert host["driver"] == "575.57"
    assert host["gpus"][1] == {
        "index": 1,
        "name": "NVIDIA H200",
        "uuid": "GPU-1",
        "memory_bytes": 150 << 30,
        "power_limit_watts": 700.0,
        "max_sm_clock_mhz": 1980,
        "sm_clock_mhz": 1501,
        "memory_clock_mhz": None,
    }


def test_a_host_without_a_driver_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    host = host_environment()
    assert (host["driver"], host["gpus"]) == (None, [])


def test_a_launch_is_described_by_its_log_its_command_and_its_gpus(driver: None) -> None:
    described = launch_environment(SPEC, Model(id_or_path="org/m"), {"version": "0.11.0", "kv_tokens": 5})
    gpus = described.pop("gpus")
    assert [gpu["index"] for gpu in gpus] == [1]
    assert described == {"version": "0.11.0", "program": "/opt/vllm", "image": "image:1"}


def test_the_image_that_ran_is_the_one_the_log_names() -> None:
    info = {"image": "image@1", "image_digest": "sha256:1"}
    described = launch_environment(SPEC, Model(id_or_path="org/m"), info)
    assert (described["image"], described["image_digest"]) == ("image@1", "sha256:1")


def test_a_server_that_was_running_already_has_no_program() -> None:
    assert launch_environment(None, Model(id_or_path="org/m"), {}) == {}


def test_a_cached_model_has_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    snapshot = tmp_path / "hub" / "models--org--m" / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert launch_environment(None, Model(id_or_path="org/m"), {}) == {"model_revision": "abc123"}
