"""The GPUs of this machine, as the NVIDIA driver lists them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

DRIVER_RESERVE_BYTES = 2 * 2**30
"""Bytes a driver and a display may hold on a GPU that nobody computes on."""

UNKNOWN_DISTANCE = 100
"""Assumed distance of two GPUs where the driver reports none; above every level that it reports."""


@dataclass(frozen=True)
class InstalledGpu:
    """One GPU; `utilisation` is the share of the driver's last sample period in which it computed, None if unknown."""

    index: int
    name: str
    uuid: str
    memory_total_bytes: int
    memory_free_bytes: int
    utilisation: float | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no program holds more of its memory than a driver and a display do."""
        return self.memory_total_bytes - self.memory_free_bytes < DRIVER_RESERVE_BYTES


@dataclass(frozen=True)
class GpuInventory:
    """All GPUs, or the reason there are none.

    `distances` maps pairs of indexes, the lower first, to 0 for NVLink, else to NVML's topology level
    of the nearest common ancestor: 10 is one board, 50 crosses CPU sockets.
    """

    gpus: tuple[InstalledGpu, ...]
    driver_version: str = ""
    reason: str = ""
    distances: Mapping[tuple[int, int], int] = field(default_factory=dict)

    def distance(self, one: int, other: int) -> int:
        """Topology distance of two GPUs; 100 where the driver reports none."""
        return self.distances.get((min(one, other), max(one, other)), UNKNOWN_DISTANCE)

    def closest_first(self, indexes: Iterable[int]) -> tuple[int, ...]:
        """Order the indexes greedily, from the closest pair, so that every prefix is well connected."""
        remaining = sorted(indexes)
        if len(remaining) < 2:
            return tuple(remaining)
        order = list(min(combinations(remaining, 2), key=lambda pair: self.distance(*pair)))
        while remaining := [index for index in remaining if index not in order]:
            order.append(min(remaining, key=lambda index: sum(self.distance(index, other) for other in order)))
        return tuple(order)

    def __iter__(self) -> Iterator[InstalledGpu]:
        return iter(self.gpus)

    def __len__(self) -> int:
        return len(self.gpus)


def query_inventory() -> GpuInventory:
    """Ask the NVIDIA driver for its GPUs; without a driver the inventory is empty and has the reason."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return GpuInventory((), reason=f"no NVIDIA driver answers ({error})")
    try:
        driver_version = driver_text(pynvml.nvmlSystemGetDriverVersion())
        gpus = tuple(_query_gpu(index) for index in range(pynvml.nvmlDeviceGetCount()))
        distances = {pair: _query_distance(*pair) for pair in combinations(range(len(gpus)), 2)}
    except pynvml.NVMLError as error:
        return GpuInventory((), reason=f"the NVIDIA driver lists no GPUs ({error})")
    finally:
        pynvml.nvmlShutdown()
    return GpuInventory(gpus, driver_version, "" if gpus else "the NVIDIA driver lists no GPUs", distances)


def _query_gpu(index: int) -> InstalledGpu:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        utilisation = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    except pynvml.NVMLError:
        # not supported under MIG
        utilisation = None
    return InstalledGpu(
        index=index,
        name=driver_text(pynvml.nvmlDeviceGetName(handle)),
        uuid=driver_text(pynvml.nvmlDeviceGetUUID(handle)),
        memory_total_bytes=int(memory.total),
        memory_free_bytes=int(memory.free),
        utilisation=utilisation,
    )


def _query_distance(one: int, other: int) -> int:
    import pynvml

    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in (one, other)]
    try:
        if _have_nvlink(*handles):
            return 0
        return int(pynvml.nvmlDeviceGetTopologyCommonAncestor(*handles))
    except pynvml.NVMLError:
        return UNKNOWN_DISTANCE


def _have_nvlink(one: Any, other: Any) -> bool:
    """Whether NVLink connects two GPUs, directly or through a switch."""
    import pynvml

    try:
        status = pynvml.nvmlDeviceGetP2PStatus(one, other, pynvml.NVML_P2P_CAPS_INDEX_NVLINK)
    except pynvml.NVMLError:
        return False
    return bool(status == pynvml.NVML_P2P_STATUS_OK)


def driver_text(value: str | bytes) -> str:
    """Text of the driver, which some versions of its binding give as bytes."""
    return value.decode() if isinstance(value, bytes) else value
