"""The measured lag and CPU share of an event loop that is blocked on purpose."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
import uvloop

from autotuner.load import overhead
from autotuner.load.overhead import KernelTimer, LoopTimer, OverheadMeter

TIMERS: list[type[KernelTimer | LoopTimer]] = [KernelTimer, LoopTimer]


@pytest.fixture(params=[uvloop.Loop, None], ids=["uvloop", "asyncio"])
def factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop] | None:
    chosen: Callable[[], asyncio.AbstractEventLoop] | None = request.param
    return chosen


async def blocked(seconds: float) -> OverheadMeter:
    """Measure while the loop does nothing but stand still for `seconds`."""
    meter = OverheadMeter()
    meter.start()
    time.sleep(seconds)
    await asyncio.sleep(0.02)
    meter.stop()
    return meter


@pytest.mark.parametrize("kind", TIMERS)
def test_a_blocked_loop_is_late_for_all_that_arrives_meanwhile(
    factory: Callable[[], asyncio.AbstractEventLoop] | None,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[KernelTimer | LoopTimer],
):
    monkeypatch.setattr(overhead, "make_timer", kind)
    with asyncio.Runner(loop_factory=factory) as runner:
        meter = runner.run(blocked(0.2))
    late = [lag for lag in meter.lags if lag > 0.01]
    assert len(late) >= 12  # an instant every 15 ms at most
    assert late[:12] == sorted(late[:12], reverse=True)
    assert max(meter.lags) >= 0.2 - 0.015
    assert meter.lag_p99 == max(meter.lags)
    assert meter.lag_mean == pytest.approx(sum(meter.lags) / len(meter.lags))


def test_an_instant_that_nothing_has_answered_at_the_end_counts_too():
    async def unanswered() -> OverheadMeter:
        meter = OverheadMeter()
        meter.start()
        time.sleep(0.1)
        meter.stop()
        return meter

    meter = asyncio.run(unanswered())
    assert len(meter.lags) >= 6
    assert max(meter.lags) >= 0.1 - 0.015


def test_a_thread_that_computes_takes_its_core_and_one_that_sleeps_does_not():
    async def computing(seconds: float) -> OverheadMeter:
        meter = OverheadMeter()
        meter.start()
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass
        meter.stop()
        return meter

    busy, idle = asyncio.run(computing(0.05)), asyncio.run(blocked(0.2))
    assert busy.cpu_share is not None
    assert idle.cpu_share is not None
    assert 0 < idle.cpu_share < busy.cpu_share <= 1.01


def test_without_a_start_there_are_no_results_and_a_stopped_meter_does_not_start():
    meter = OverheadMeter()
    meter.stop()
    meter.start()
    assert (meter.lags, meter.lag_mean, meter.lag_p99, meter.cpu_share) == ([], None, 0.0, None)


def test_without_a_kernel_timer_the_event_loops_own_is_used(monkeypatch: pytest.MonkeyPatch):
    async def timer_classes() -> list[type]:
        classes = []
        for _ in range(2):
            timer = overhead.make_timer(lambda: None)
            classes.append(type(timer))
            timer.close()
            monkeypatch.setattr(overhead, "LIBC", object())
        return classes

    assert asyncio.run(timer_classes()) == TIMERS
