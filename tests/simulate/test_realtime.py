from __future__ import annotations

import asyncio

import pytest

from autotuner.simulate import realtime
from autotuner.simulate.alarm import KernelAlarm, LoopAlarm, create_alarm
from autotuner.simulate.realtime import RealtimeEngine
from autotuner.simulate.scheduler import ScheduledRequest, Scheduler, SchedulerLimits

LIMITS = SchedulerLimits(8, 64, 256, 4, 200)


class RecordingScheduler(Scheduler):
    """A scheduler that records the start of its iterations."""

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
    scheduler = RecordingScheduler(0.001)
    generate(scheduler, [ScheduledRequest(4, 40)])
    assert len(scheduler.starts) == 40
    gaps = [later - earlier for earlier, later in zip(scheduler.starts, scheduler.starts[1:], strict=False)]
    assert gaps == pytest.approx([0.001] * 39, abs=1e-9)


def test_requests_submitted_together_share_their_first_iteration():
    scheduler = RecordingScheduler(0.0)
    generate(scheduler, [ScheduledRequest(4, 3) for _ in range(5)])
    assert len(scheduler.starts) == 3


def test_a_clock_that_is_too_late_is_reset(monkeypatch, caplog):
    monkeypatch.setattr(realtime, "MAX_LATENESS_SECONDS", 0.0)
    scheduler = RecordingScheduler(0.0)
    generate(scheduler, [ScheduledRequest(4, 3)])
    assert "fell" in caplog.text


def test_lateness_is_counted_once_per_iteration():
    engine = generate(RecordingScheduler(0.0), [ScheduledRequest(4, 10)])
    assert sum(engine.lateness.counts) == 10
    assert engine.lateness.total_seconds > 0


def test_an_aborted_request_gets_no_further_token():
    scheduler = RecordingScheduler(0.0)
    aborted, remaining = ScheduledRequest(4, 200), ScheduledRequest(4, 20)
    tokens = {aborted: 0, remaining: 0}

    def on_token(engine: RealtimeEngine, request: ScheduledRequest) -> None:
        tokens[request] += 1
        if tokens[remaining] == 3:
            engine.abort(aborted)

    # The third token of the aborted request is computed already, but not yet sent.
    generate(scheduler, [remaining, aborted], on_token)
    assert tokens == {aborted: 2, remaining: 20}
    assert scheduler.block_pool.used_blocks == 0


def ring_order(create, *deadlines: list[tuple[str, float]]) -> list[str]:
    """Set each list of (name, seconds from now) on its own alarm; return the order in which they rang."""

    async def run() -> list[str]:
        loop = asyncio.get_running_loop()
        ring_names: list[str] = []
        alarms = []
        for settings in deadlines:
            names: list[str] = []
            alarm = create(loop, lambda names=names: ring_names.append(names[-1]))
            alarms.append(alarm)
            for name, seconds in settings:
                names.append(name)
                alarm.set(asyncio.get_running_loop().time() + seconds)
        for _ in range(1000):
            if len(ring_names) == len(deadlines):
                break
            await asyncio.sleep(0.01)
        for alarm in alarms:
            alarm.close()
        return ring_names

    return asyncio.run(run())


@pytest.mark.parametrize("create", [KernelAlarm, LoopAlarm, create_alarm])
def test_alarms_ring_in_order_once_and_the_latest_deadline_counts(create):
    assert ring_order(create, [("late", 0.2)], [("early", 0.02)]) == ["early", "late"]
    assert ring_order(create, [("long", 60.0), ("short", 0.01)], [("past", -5.0)]) == ["past", "short"]
