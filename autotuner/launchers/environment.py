"""What figures depend on besides the configuration: autotune, the host, its GPUs and driver, the engine, the model."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autotuner import __version__, model_files
from autotuner.core import ServerSpec
from autotuner.experiment import Model
from autotuner.launchers.gpus import driver_text


def host_environment() -> dict[str, Any]:
    """The host as JSON: name, system, kernel, CPU, bytes of memory, GPUs, versions of driver, autotune and Python."""
    driver_version, gpus = _gpu_environments()
    return {
        "autotune": __version__,
        "python": platform.python_version(),
        "host": platform.node(),
        "system": _first_match(Path("/etc/os-release"), r'^PRETTY_NAME="?([^"\n]*)') or platform.system(),
        "kernel": platform.release(),
        "cpu": _first_match(Path("/proc/cpuinfo"), r"^model name\s*:\s*(.*)$") or platform.machine(),
        "cpu_cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "driver": driver_version,
        "gpus": gpus,
    }


def launch_environment(spec: ServerSpec | None, model: Model, server_info: Mapping[str, Any]) -> dict[str, Any]:
    """The environment of one launch as JSON: engine version, image, program, model revision, and the state of its GPUs.

    `server_info` is what the server's log tells. Without a `spec` the server was running already.
    """
    environment = {
        key: server_info[key]
        for key in ("version", "image", "image_digest", "node", "gpu_product")
        if key in server_info
    }
    if spec is not None:
        environment |= {"program": spec.argv[0], "image": environment.get("image", spec.image)}
        environment["gpus"] = _gpu_environments(spec.devices)[1] if spec.devices else []
    config = model_files.config_file(model)
    if config is not None and config.parent.parent.name == "snapshots":
        environment["model_revision"] = config.parent.name
    return environment


def _gpu_environments(indexes: Sequence[int] | None = None) -> tuple[str | None, list[dict[str, Any]]]:
    """(driver version, GPUs as JSON: clocks in MHz, power limit in watts); empty without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None, []
    try:
        chosen = range(pynvml.nvmlDeviceGetCount()) if indexes is None else indexes
        driver_version = driver_text(pynvml.nvmlSystemGetDriverVersion())
        return driver_version, [_gpu_environment(pynvml, index) for index in chosen]
    except pynvml.NVMLError:
        return None, []
    finally:
        pynvml.nvmlShutdown()


def _gpu_environment(nvml: Any, index: int) -> dict[str, Any]:
    """One GPU; None for what its driver does not tell, as under MIG."""
    gpu = nvml.nvmlDeviceGetHandleByIndex(index)

    def ask(query: Callable[[], Any]) -> Any:
        try:
            return query()
        except nvml.NVMLError:
            return None

    power_limit = ask(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu))
    return {
        "index": index,
        "name": driver_text(nvml.nvmlDeviceGetName(gpu)),
        "uuid": driver_text(nvml.nvmlDeviceGetUUID(gpu)),
        "memory_bytes": ask(lambda: int(nvml.nvmlDeviceGetMemoryInfo(gpu).total)),
        "power_limit_watts": power_limit and power_limit / 1000,
        "max_sm_clock_mhz": ask(lambda: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM)),
        "sm_clock_mhz": ask(lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)),
        "memory_clock_mhz": ask(lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM)),
    }


def _first_match(path: Path, pattern: str) -> str | None:
    """The first group of a pattern in a file; None where there is neither."""
    try:
        match = re.search(pattern, path.read_text(errors="replace"), re.MULTILINE)
    except OSError:
        return None
    return match.group(1).strip() if match else None
