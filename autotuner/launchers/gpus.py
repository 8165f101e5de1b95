"""The GPUs of this machine, as the NVIDIA driver lists them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

DRIVER_RESERVE_BYTES = 2 * 2**30
"""Bytes a driver and a display may hold on a GPU that nobody computes on."""

UNKNOWN_DISTANCE = 100
"""How far apart two GPUs are taken to be where the driver does not tell."""


@dataclass(frozen=True)
class InstalledGpu:
    """One GPU; `busy` is the share of the last moment in which it computed, None where not told."""

    index: int
    name: str
    uuid: str
    memory_total_bytes: int
    memory_free_bytes: int
    utilisation: float | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing but the driver's own reserve occupies its memory."""
        return self.memory_total_bytes - self.memory_free_bytes < DRIVER_RESERVE_BYTES


@dataclass(frozen=True)
class GpuInventory:
    """All GPUs, or the reason there are none.

    `distances` says for a pair of indexes, the lower first, how far apart they are: 0 for NVLink,
    else the driver's level of their nearest common bridge, where 10 is one board and 50 two sockets.
    """

    gpus: tuple[InstalledGpu, ...]
    driver_version: str = ""
    reason: str = ""
    distances: Mapping[tuple[int, int], int] = field(default_factory=dict)

    def distance(self, one: int, other: int) -> int:
        """How far apart two GPUs are; 100 where the driver does not tell."""
        return self.distances.get((min(one, other), max(one, other)), UNKNOWN_DISTANCE)

    def closest_first(self, indexes: Iterable[int]) -> tuple[int, ...]:
        """The indexes in an order in which the first n are close together, for every n."""
        left = sorted(indexes)
        if len(left) < 2:
            return tuple(left)
        chosen = list(min(combinations(left, 2), key=lambda pair: self.distance(*pair)))
        while rest := [index for index in left if index not in chosen]:
            chosen.append(min(rest, key=lambda index: sum(self.distance(index, other) for other in chosen)))
        return tuple(chosen)

    def __iter__(self) -> Iterator[InstalledGpu]:
        return iter(self.gpus)

    def __len__(self) -> int:
        return len(self.gpus)


def query_inventory() -> GpuInventory:
    """Ask the driver; a machine without one has no GPUs and the reason why."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return GpuInventory((), reason=f"no NVIDIA driver answers ({error})")
    try:
        driver = _decode(pynvml.nvmlSystemGetDriverVersion())
        found = tuple(_query_gpu(index) for index in range(pynvml.nvmlDeviceGetCount()))
        distances = {pair: _query_distance(*pair) for pair in combinations(range(len(found)), 2)}
    except pynvml.NVMLError as error:
        return GpuInventory((), reason=f"the NVIDIA driver lists no GPUs ({error})")
    finally:
        pynvml.nvmlShutdown()
    return GpuInventory(found, driver, "" if found else "the NVIDIA driver lists no GPUs", distances)


def _query_gpu(index: int) -> InstalledGpu:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        busy = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    except pynvml.NVMLError:
        # not told under MIG
        busy = None
    return InstalledGpu(
        index=index,
        name=_decode(pynvml.nvmlDeviceGetName(handle)),
        uuid=_decode(pynvml.nvmlDeviceGetUUID(handle)),
        memory_total_bytes=int(memory.total),
        memory_free_bytes=int(memory.free),
        utilisation=busy,
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


def _decode(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
