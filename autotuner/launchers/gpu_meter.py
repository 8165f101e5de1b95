"""What GPUs draw and do while a load runs, as the NVIDIA driver tells a few times a second."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from time import monotonic
from typing import Any, NamedTuple

from autotuner.core import GpuUse

INTERVAL_SECONDS = 0.2
"""Seconds between two readings; drivers renew their own figures about as often."""


class Reading(NamedTuple):
    """All GPUs together at one moment: watts, bytes, joules since the driver was loaded.

    `busy` is the mean share of the last moment in which they computed. None where the driver does not tell.
    """

    time: float
    watts: float
    memory_bytes: int
    utilisation: float | None
    joules: float | None


class GpuMeter:
    """Readings of some GPUs, in the order of their times on the monotonic clock."""

    def __init__(self, handles: Sequence[Any]) -> None:
        self._handles = handles
        self._readings: list[Reading] = []

    def read(self) -> bool:
        """Add a reading; False without GPUs, or when the driver gives none."""
        import pynvml

        if not self._handles:
            return False
        try:
            self._readings.append(_take_reading(self._handles))
        except pynvml.NVMLError:
            return False
        return True

    def usage(self, start: float, end: float) -> GpuUse | None:
        """What the GPUs drew and did from `start` to `end`; None where that is not covered by readings."""
        self.read()
        readings = sorted(self._readings, key=lambda reading: reading.time)
        times = [reading.time for reading in readings]
        first, last = bisect_right(times, start) - 1, bisect_left(times, end)
        inside = readings[first + 1 : last]
        if first < 0 or last >= len(readings) or not inside or end <= start:
            return None
        energy = _energy_joules(readings[first : last + 1], start, end)
        busy = [reading.utilisation for reading in inside if reading.utilisation is not None]
        return GpuUse(
            gpus=len(self._handles),
            samples=len(inside),
            energy=energy,
            mean_watts=energy / (end - start),
            max_watts=max(reading.watts for reading in inside),
            utilisation=sum(busy) / len(busy) if busy else None,
            memory_used=max(reading.memory_bytes for reading in inside),
        )


@contextmanager
def meter_gpus(devices: Sequence[int], interval: float = INTERVAL_SECONDS) -> Iterator[GpuMeter]:
    """Read the GPUs with these indexes until the block ends; nothing is read where no driver has them all."""
    import pynvml

    if not devices:
        yield GpuMeter(())
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield GpuMeter(())
        return
    try:
        meter = GpuMeter(_device_handles(devices))
        with _background_readings(meter, interval):
            yield meter
    finally:
        pynvml.nvmlShutdown()


@contextmanager
def _background_readings(meter: GpuMeter, interval: float) -> Iterator[None]:
    """Have a thread read on until the block ends, or the driver fails."""
    ended = threading.Event()

    def read_on() -> None:
        while meter.read() and not ended.wait(interval):
            pass

    thread = threading.Thread(target=read_on, name="gpu-meter", daemon=True)
    if meter.read():
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread.is_alive():
            thread.join()


def _device_handles(devices: Sequence[int]) -> tuple[Any, ...]:
    import pynvml

    try:
        return tuple(pynvml.nvmlDeviceGetHandleByIndex(index) for index in devices)
    except pynvml.NVMLError:
        return ()


def _take_reading(handles: Sequence[Any]) -> Reading:
    import pynvml

    at = monotonic()
    watts = sum(pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3 for handle in handles)
    memory = sum(int(pynvml.nvmlDeviceGetMemoryInfo(handle).used) for handle in handles)
    busy = _sum_if_supported(lambda handle: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100, handles)
    energy = _sum_if_supported(lambda handle: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, handles)
    return Reading(at, watts, memory, None if busy is None else busy / len(handles), energy)


def _sum_if_supported(query: Any, handles: Sequence[Any]) -> float | None:
    """The sum over all GPUs; None where one does not tell, as under MIG or before Volta."""
    import pynvml

    try:
        return float(sum(query(handle) for handle in handles))
    except pynvml.NVMLError:
        return None


def _energy_joules(readings: Sequence[Reading], start: float, end: float) -> float:
    """Joules between two instants: the driver's own count, else the integral of its power.

    The count is preferred because power is a mean over the last second on most GPUs.
    """
    counts = [(reading.time, reading.joules) for reading in readings if reading.joules is not None]
    if len(counts) == len(readings):
        return _interpolate(counts, end) - _interpolate(counts, start)
    curve = [(reading.time, reading.watts) for reading in readings]
    within = [point for point in curve if start < point[0] < end]
    points = [(start, _interpolate(curve, start)), *within, (end, _interpolate(curve, end))]
    return sum((later - at) * (watts + then) / 2 for (at, watts), (later, then) in pairwise(points))


def _interpolate(curve: Sequence[tuple[float, float]], time: float) -> float:
    """The height of a curve of straight lines at a time between its first and its last point."""
    for (before, low), (after, high) in pairwise(curve):
        if time <= after:
            return low + (high - low) * (time - before) / (after - before) if after > before else high
    return curve[-1][1]
