from __future__ import annotations

import asyncio

import pytest

from autotuner.simulate import realtime
from autotuner.simulate.alarm import KernelAlarm, LoopAlarm, create_alarm
from autotuner.simulate.realtime import RealtimeEngine
from autotuner.simulate.scheduler import ScheduledRequest, Scheduler, SchedulerLimits

LIMITS = SchedulerLimits(8, 64, 256, 4, 200)


class Recorded(Scheduler):
    """A scheduler that keeps the times of its iterations."""

    def __init__(self, seconds: float) -> None:
        super().__init__(LIMITS, lambda prefill, decodes, context: seconds)
        self.starts: list[float] = []

    def step(self, now):
        result = super().step(now)
        if result is not None:
            self.starts.append(now)
        return result


def generate(
    scheduler: Scheduler, requests: list[ScheduledRequest], on_token=lambda engine, request: None
) -> RealtimeEngine:
    async def run() -> RealtimeEngine:
        done = asyncio.Event()
        engine = RealtimeEngine(scheduler, asyncio.get_running_loop())
        for request in requests:

            def sink(tokens: int, request: ScheduledRequest = request) -> None:
                on_token(engine, request)
                if scheduler.is_idle:
                    done.set()

            engine.submit(request, sink)
        await asyncio.wait_for(done.wait(), 10)
        await asyncio.sleep(0)
        engine.close()
        return engine

    return asyncio.run(run())


def test_every_iteration_starts_exactly_when_its_predecessor_ended():
    scheduler = Recorded(0.001)
    generate(scheduler, [ScheduledRequest(4, 40)])
    assert len(scheduler.starts) == 40
    gaps = [later - earlier for earlier, later in zip(scheduler.starts, scheduler.starts[1:], strict=False)]
    assert gaps == pytest.approx([0.001] * 39, abs=1e-9)


def test_requests_submitted_together_share_their_first_iteration():
    scheduler = Recorded(0.0)
    generate(scheduler, [ScheduledRequest(4, 3) for _ in range(5)])
    assert len(scheduler.starts) == 3


def test_a_clock_that_is_hopelessly_late_is_set_anew(monkeypatch, caplog):
    monkeypatch.setattr(realtime, "MAX_LATENESS_SECONDS", 0.0)
    scheduler = Recorded(0.0)
    generate(scheduler, [ScheduledRequest(4, 3)])
    assert "fell" in caplog.text


def test_lateness_is_counted_once_per_iteration():
    engine = generate(Recorded(0.0), [ScheduledRequest(4, 10)])
    assert sum(engine.lateness.counts) == 10
    assert engine.lateness.total_seconds > 0


def test_an_aborted_request_gets_no_further_token():
    scheduler = Recorded(0.0)
    gone, stays = ScheduledRequest(4, 200), ScheduledRequest(4, 20)
    tokens = {gone: 0, stays: 0}

    def on_token(engine: RealtimeEngine, request: ScheduledRequest) -> None:
        tokens[request] += 1
        if tokens[stays] == 3:
            engine.abort(gone)

    # The third token of the one that goes is computed already, but not yet sent.
    generate(scheduler, [stays, gone], on_token)
    assert tokens == {gone: 2, stays: 20}
    assert scheduler.block_pool.used_blocks == 0


def rung(make, *settings: list[tuple[str, float]]) -> list[str]:
    """Set alarms of (name, seconds from now), each list on an alarm of its own; the order they rang in."""

    async def run() -> list[str]:
        loop = asyncio.get_running_loop()
        rang: list[str] = []
        alarms = []
        for times in settings:
            names: list[str] = []
            ringing = make(loop, lambda names=names: rang.append(names[-1]))
            alarms.append(ringing)
            for name, seconds in times:
                names.append(name)
                ringing.set(asyncio.get_running_loop().time() + seconds)
        for _ in range(1000):
            if len(rang) == len(settings):
                break
            await asyncio.sleep(0.01)
        for ringing in alarms:
            ringing.close()
        return rang

    return asyncio.run(run())


@pytest.mark.parametrize("make", [KernelAlarm, LoopAlarm, create_alarm])
def test_alarms_ring_in_order_once_and_the_latest_deadline_counts(make):
    assert rung(make, [("late", 0.2)], [("early", 0.02)]) == ["early", "late"]
    assert rung(make, [("long", 60.0), ("short", 0.01)], [("past", -5.0)]) == ["past", "short"]
