"""The GPUs of this machine, as the NVIDIA driver lists them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One GPU; `busy` is the share of the last moment in which it computed, None where not told."""

    index: int
    name: str
    uuid: str
    memory_total_bytes: int
    memory_free_bytes: int
    busy: float | None = None


@dataclass(frozen=True)
class Inventory:
    """All GPUs, or the reason there are none."""

    gpus: tuple[Gpu, ...]
    driver: str = ""
    reason: str = ""

    def __iter__(self) -> Iterator[Gpu]:
        return iter(self.gpus)

    def __len__(self) -> int:
        return len(self.gpus)


def inventory() -> Inventory:
    """Ask the driver; a machine without one has no GPUs and the reason why."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Inventory((), reason=f"no NVIDIA driver answers ({error})")
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        found = tuple(_gpu(index) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError as error:
        return Inventory((), reason=f"the NVIDIA driver lists no GPUs ({error})")
    finally:
        pynvml.nvmlShutdown()
    return Inventory(found, driver, "" if found else "the NVIDIA driver lists no GPUs")


def _gpu(index: int) -> Gpu:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        busy = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    except pynvml.NVMLError:
        # not told under MIG
        busy = None
    return Gpu(
        index=index,
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        memory_total_bytes=int(memory.total),
        memory_free_bytes=int(memory.free),
        busy=busy,
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
