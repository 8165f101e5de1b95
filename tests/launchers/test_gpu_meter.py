"""What GPUs draw, read from a fake driver."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pynvml
import pytest

from autotuner.core import GpuUse
from autotuner.launchers import gpu_meter
from autotuner.launchers.gpu_meter import GpuMeter, meter_gpus


class Driver:
    """A fake NVML whose GPUs draw `watts` at a `time` that the test advances; queries in `unsupported` raise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = 100.0
        self.watts = {0: 300.0, 1: 500.0}
        self.joules = {0: 7000.0, 1: 9000.0}
        self.utilisation_percent = 50
        self.unsupported: set[str] = set()
        self.opened = 0
        for name in ("Init", "Shutdown"):
            monkeypatch.setattr(pynvml, f"nvml{name}", self._counts(1 if name == "Init" else -1))
        for name, answer in {
            "HandleByIndex": self._handle,
            "PowerUsage": lambda gpu: round(self.watts[gpu] * 1e3),
            "MemoryInfo": lambda gpu: SimpleNamespace(used=(gpu + 1) << 30),
            "UtilizationRates": lambda gpu: SimpleNamespace(gpu=self.utilisation_percent),
            "TotalEnergyConsumption": lambda gpu: round(self.joules[gpu] * 1e3),
        }.items():
            monkeypatch.setattr(pynvml, f"nvmlDeviceGet{name}", self._answering(name, answer))
        monkeypatch.setattr(gpu_meter, "monotonic", lambda: self.time)

    def _counts(self, change: int) -> Callable[[], None]:
        def call() -> None:
            self._refuse("Init")
            self.opened += change

        return call

    def _answering(self, name: str, answer: Callable[[int], object]) -> Callable[[int], object]:
        def call(gpu: int) -> object:
            self._refuse(name)
            return answer(gpu)

        return call

    def _refuse(self, name: str) -> None:
        if name in self.unsupported:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def _handle(self, index: int) -> int:
        if index not in self.watts:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return index

    def advance(self, seconds: float) -> None:
        self.time += seconds
        for gpu, watts in self.watts.items():
            self.joules[gpu] += watts * seconds


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    return Driver(monkeypatch)


def take_readings(driver: Driver, meter: GpuMeter, seconds: int) -> None:
    """A reading every second, the first one now."""
    for _ in range(seconds):
        meter.read()
        driver.advance(1.0)


def test_a_steady_draw_is_told_with_its_energy(driver: Driver) -> None:
    meter = GpuMeter((0, 1))
    take_readings(driver, meter, 10)
    assert meter.usage(102.5, 107.5) == GpuUse(
        gpus=2, samples=5, energy=4000.0, mean_watts=800.0, max_watts=800.0, utilisation=0.5, memory_used=3 << 30
    )


def test_what_was_drawn_before_and_after_the_window_is_not_counted(driver: Driver) -> None:
    meter = GpuMeter((0,))
    for watts in (100.0, 600.0, 600.0, 600.0, 100.0):
        driver.watts[0] = watts
        take_readings(driver, meter, 2)
    usage = meter.usage(102.0, 108.0)
    assert usage is not None
    assert (usage.energy, usage.mean_watts, usage.max_watts) == (3600.0, 600.0, 600.0)


@pytest.mark.parametrize(("start", "end", "joules"), [(101.0, 104.0, 750.0), (101.5, 103.5, 500.0)])
def test_without_a_counter_the_energy_is_the_integral_of_the_power(
    driver: Driver, start: float, end: float, joules: float
) -> None:
    driver.unsupported = {"TotalEnergyConsumption"}
    meter = GpuMeter((0,))
    for watts in (0.0, 100.0, 200.0, 300.0, 400.0, 500.0):
        driver.watts[0] = watts
        take_readings(driver, meter, 1)
    usage = meter.usage(start, end)
    assert usage is not None
    assert usage.energy == pytest.approx(joules)


def test_a_figure_the_driver_does_not_tell_is_none(driver: Driver) -> None:
    driver.unsupported = {"UtilizationRates"}
    meter = GpuMeter((0,))
    take_readings(driver, meter, 4)
    usage = meter.usage(101.0, 103.5)
    assert usage is not None
    assert usage.utilisation is None
    assert usage.mean_watts == 300.0


@pytest.mark.parametrize("window", [(99.0, 103.0), (101.0, 120.0), (101.1, 101.9), (103.0, 102.0)])
def test_a_window_that_readings_do_not_cover_has_no_figures(driver: Driver, window: tuple[float, float]) -> None:
    meter = GpuMeter((0,))
    take_readings(driver, meter, 5)
    assert meter.usage(*window) is None


def test_a_reading_is_added_for_a_window_that_ends_now(driver: Driver) -> None:
    meter = GpuMeter((0,))
    take_readings(driver, meter, 3)
    assert meter.usage(100.5, 103.0) is not None


def test_no_gpus_no_figures(driver: Driver) -> None:
    with meter_gpus(()) as meter:
        assert meter.usage(0.0, 1000.0) is None
    assert driver.opened == 0


@pytest.mark.parametrize("lacking", ["Init", "HandleByIndex", "PowerUsage"])
def test_a_driver_that_does_not_answer_gives_no_figures(driver: Driver, lacking: str) -> None:
    driver.unsupported = {lacking}
    with meter_gpus((0,)) as meter:
        driver.advance(5.0)
        assert meter.usage(101.0, 103.0) is None
    assert driver.opened == 0


def test_gpus_of_another_machine_have_no_figures(driver: Driver) -> None:
    with meter_gpus((0, 6)) as meter:
        driver.advance(5.0)
        assert meter.usage(101.0, 103.0) is None


def test_readings_are_taken_until_the_block_ends(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    readings_taken = threading.Semaphore(0)

    class Counting(GpuMeter):
        def read(self) -> bool:
            driver.advance(0.2)
            succeeded = super().read()
            readings_taken.release()
            return succeeded

    monkeypatch.setattr(gpu_meter, "GpuMeter", Counting)
    with meter_gpus((0,), interval=0.001) as meter:
        for _ in range(6):
            assert readings_taken.acquire(timeout=30)
        usage = meter.usage(100.3, 101.0)
    assert usage is not None
    assert usage.mean_watts == pytest.approx(300.0)
    assert driver.opened == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "gpu-meter"]
