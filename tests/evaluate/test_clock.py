"""The clock of trials while the system's clock is set."""

from __future__ import annotations

import time

import pytest

from autotuner.evaluate.clock import steady_unix_time


@pytest.mark.parametrize("jump", [2 * 86_400.0, -2 * 86_400.0])
def test_a_jump_of_the_systems_clock_makes_no_duration_longer_or_negative(
    monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    jumped = time.time() + jump
    before = steady_unix_time()
    monkeypatch.setattr(time, "time", lambda: jumped)
    assert 0 <= steady_unix_time() - before < 3_600
