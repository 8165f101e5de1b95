"""Checks of this machine for `autotune doctor`: GPUs, Docker, engines, load generator, disk, models."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autotuner import __version__
from autotuner.engines import ENGINES, engine
from autotuner.errors import MachineError, pluralize
from autotuner.experiment import Runtime
from autotuner.launchers import gpus
from autotuner.load.priority import real_time_allowed


@dataclass(frozen=True)
class Finding:
    """State of one part of the machine, and how to fix it."""

    part: str
    state: Literal["ok", "missing", "warning"]
    details: str
    remedy: str = ""


def check_machine() -> list[Finding]:
    """Check everything a run may need, without starting anything."""
    return [_python(), *_gpus(), _docker(), *_engines(), _load_generator(), _disk(), _model_cache()]


def _python() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    version = platform.python_version()
    return Finding("autotune", "ok", f"{__version__} on Python {version}, {platform.system()}, {cores} CPU cores")


def _gpus() -> Iterator[Finding]:
    inventory = gpus.query_inventory()
    if not inventory.gpus:
        yield Finding("GPUs", "missing", inventory.reason or "none", "Install the NVIDIA driver, or use --runtime sim.")
    for gpu in inventory.gpus:
        memory = f"{gpu.memory_free_bytes / 2**30:.0f} of {gpu.memory_total_bytes / 2**30:.0f} GiB free"
        yield Finding(f"GPU {gpu.index}", "ok", f"{gpu.name}, {memory}")


def _docker() -> Finding:
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=5)
        try:
            version = client.version()["Version"]
        finally:
            client.close()
    except DockerException as error:
        socket = os.environ.get("DOCKER_HOST", "/var/run/docker.sock")
        why = "permission denied" if "Permission denied" in str(error) else "no daemon answers"
        return Finding(
            "Docker", "missing", f"{why} at {socket}", "Start the Docker daemon, and let this user reach its socket."
        )
    return Finding("Docker", "ok", f"Engine {version}")


def _engines() -> Iterator[Finding]:
    for name in (name for name in ENGINES if name != "openai"):  # it stands for servers that are already running
        try:
            command = engine(name).base_command(Runtime())
        except MachineError as error:
            yield Finding(f"engine {name}", "missing", error.what, error.remedy)
        else:
            yield Finding(f"engine {name}", "ok", " ".join(command))


def _load_generator() -> Finding:
    """Whether other processes can delay the load generator's stamps."""
    if real_time_allowed():
        return Finding("load generator", "ok", "runs at real-time priority: other processes do not delay its stamps")
    return Finding(
        "load generator",
        "warning",
        "has no real-time priority: on a busy machine its stamps are late, which client-delay then says",
        "Allow it real-time priority (rtprio 1 in /etc/security/limits.conf, or CAP_SYS_NICE in a container), "
        "or keep a core free for it.",
    )


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    state: Literal["ok", "warning"] = "ok" if free > 1 else "warning"
    return Finding("disk", state, f"{free:.0f} GiB free in {Path.cwd()}", "" if state == "ok" else "Free some space.")


def _model_cache() -> Finding:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")) / "hub"
    models = sorted(path.name.removeprefix("models--").replace("--", "/") for path in home.glob("models--*"))
    if not models:
        return Finding("model cache", "missing", f"no models in {home}", "Give --model a folder, or download one.")
    return Finding("model cache", "ok", f"{pluralize(len(models), 'model')} in {home}: {', '.join(models[:5])}")
