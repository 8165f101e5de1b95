"""What the load generator's event loop adds, on a loop that is held on purpose."""

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
    return request.param


async def held(seconds: float) -> OverheadMeter:
    """Measure while the loop does nothing but stand still for `seconds`."""
    measuring = OverheadMeter()
    measuring.start()
    time.sleep(seconds)
    await asyncio.sleep(0.02)
    measuring.stop()
    return measuring


@pytest.mark.parametrize("kind", TIMERS)
def test_a_loop_that_stands_still_is_late_for_all_that_arrives_meanwhile(
    factory: Callable[[], asyncio.AbstractEventLoop] | None,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[KernelTimer | LoopTimer],
):
    monkeypatch.setattr(overhead, "make_timer", kind)
    with asyncio.Runner(loop_factory=factory) as runner:
        measured = runner.run(held(0.2))
    late = [lag for lag in measured.lags if lag > 0.01]
    assert len(late) >= 12  # an instant every 15 ms at most
    assert late == sorted(late, reverse=True)
    assert max(measured.lags) >= 0.2 - 0.015
    assert measured.lag_p99 == max(measured.lags)
    assert measured.lag_mean == pytest.approx(sum(measured.lags) / len(measured.lags))


def test_an_instant_that_nothing_has_answered_at_the_end_counts_too():
    async def unanswered() -> OverheadMeter:
        measuring = OverheadMeter()
        measuring.start()
        time.sleep(0.1)
        measuring.stop()
        return measuring

    measured = asyncio.run(unanswered())
    assert len(measured.lags) >= 6
    assert max(measured.lags) >= 0.1 - 0.015


def test_a_thread_that_computes_takes_its_core_and_one_that_sleeps_does_not():
    async def computing(seconds: float) -> OverheadMeter:
        measuring = OverheadMeter()
        measuring.start()
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass
        measuring.stop()
        return measuring

    busy, idle = asyncio.run(computing(0.05)), asyncio.run(held(0.2))
    assert busy.cpu_share is not None
    assert idle.cpu_share is not None
    assert 0 < idle.cpu_share < busy.cpu_share <= 1.01


def test_what_never_began_has_no_figures_and_what_is_over_does_not_begin():
    measuring = OverheadMeter()
    measuring.stop()
    measuring.start()
    assert (measuring.lags, measuring.lag_mean, measuring.lag_p99, measuring.cpu_share) == ([], None, 0.0, None)


def test_without_a_timer_of_the_kernel_the_loops_own_is_used(monkeypatch: pytest.MonkeyPatch):
    async def made() -> list[type]:
        kinds = []
        for _ in range(2):
            one = overhead.make_timer(lambda: None)
            kinds.append(type(one))
            one.close()
            monkeypatch.setattr(overhead, "LIBC", object())
        return kinds

    assert asyncio.run(made()) == TIMERS
