"""Power, energy, memory and utilisation of GPUs during a load, sampled from the NVIDIA driver."""

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
"""Seconds between two readings; drivers update their figures about as often."""


class Reading(NamedTuple):
    """One sample summed over all GPUs; `joules` since the driver was loaded, `utilisation` as a mean from 0 to 1.

    None where the driver does not report a figure. `time` is on the monotonic clock.
    """

    time: float
    watts: float
    memory_bytes: int
    utilisation: float | None
    joules: float | None


class GpuMeter:
    """Collects readings of the GPUs behind some NVML handles."""

    def __init__(self, handles: Sequence[Any]) -> None:
        self._handles = handles
        self._readings: list[Reading] = []

    def read(self) -> bool:
        """Take a reading; False without GPUs, or when the driver fails."""
        import pynvml

        if not self._handles:
            return False
        try:
            self._readings.append(_take_reading(self._handles))
        except pynvml.NVMLError:
            return False
        return True

    def usage(self, start: float, end: float) -> GpuUse | None:
        """Energy, power, memory and utilisation from `start` to `end`; None where readings do not cover that window."""
        self.read()
        readings = sorted(self._readings, key=lambda reading: reading.time)
        times = [reading.time for reading in readings]
        first, last = bisect_right(times, start) - 1, bisect_left(times, end)
        inside = readings[first + 1 : last]
        if first < 0 or last >= len(readings) or not inside or end <= start:
            return None
        energy = _energy_joules(readings[first : last + 1], start, end)
        utilisations = [reading.utilisation for reading in inside if reading.utilisation is not None]
        return GpuUse(
            gpus=len(self._handles),
            samples=len(inside),
            energy=energy,
            mean_watts=energy / (end - start),
            max_watts=max(reading.watts for reading in inside),
            utilisation=sum(utilisations) / len(utilisations) if utilisations else None,
            memory_used=max(reading.memory_bytes for reading in inside),
        )


@contextmanager
def meter_gpus(devices: Sequence[int], interval: float = INTERVAL_SECONDS) -> Iterator[GpuMeter]:
    """Sample the GPUs with these indexes until the block ends; no readings where the driver lacks one of them."""
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
    """Take readings in a thread until the block ends, or the driver fails."""
    stop = threading.Event()

    def read_repeatedly() -> None:
        while meter.read() and not stop.wait(interval):
            pass

    thread = threading.Thread(target=read_repeatedly, name="gpu-meter", daemon=True)
    if meter.read():
        thread.start()
    try:
        yield
    finally:
        stop.set()
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

    time = monotonic()
    watts = sum(pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3 for handle in handles)
    memory = sum(int(pynvml.nvmlDeviceGetMemoryInfo(handle).used) for handle in handles)
    utilisation = _sum_if_supported(lambda handle: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100, handles)
    joules = _sum_if_supported(lambda handle: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, handles)
    return Reading(time, watts, memory, None if utilisation is None else utilisation / len(handles), joules)


def _sum_if_supported(query: Any, handles: Sequence[Any]) -> float | None:
    """Sum of `query(handle)` over all GPUs; None where one does not support it, as under MIG or before Volta."""
    import pynvml

    try:
        return float(sum(query(handle) for handle in handles))
    except pynvml.NVMLError:
        return None


def _energy_joules(readings: Sequence[Reading], start: float, end: float) -> float:
    """Joules between two times, from the driver's energy counter, else the trapezoidal integral of its power.

    The counter is preferred because power is a mean over the last second on most GPUs.
    """
    counter = [(reading.time, reading.joules) for reading in readings if reading.joules is not None]
    if len(counter) == len(readings):
        return _interpolate(counter, end) - _interpolate(counter, start)
    power = [(reading.time, reading.watts) for reading in readings]
    interior = [point for point in power if start < point[0] < end]
    points = [(start, _interpolate(power, start)), *interior, (end, _interpolate(power, end))]
    return sum((t1 - t0) * (watts0 + watts1) / 2 for (t0, watts0), (t1, watts1) in pairwise(points))


def _interpolate(curve: Sequence[tuple[float, float]], time: float) -> float:
    """Linear interpolation of (time, value) points at a time between the first and the last of them."""
    for (t0, value0), (t1, value1) in pairwise(curve):
        if time <= t1:
            return value0 + (value1 - value0) * (time - t0) / (t1 - t0) if t1 > t0 else value1
    return curve[-1][1]
