"""What can go wrong on a real vLLM on CPU without a GPU, each named rightly: as a process and in a container."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest

from autotuner.core import FailureKind, Measurement, Progress, Value
from autotuner.launchers import ports

pytestmark = pytest.mark.engine

EAGER: dict[str, Value] = {"cuda-graph": False}
"""Halves the start: nothing is compiled."""

Measure = Callable[..., Measurement]


ON_THIS_MACHINE = pytest.mark.parametrize("place", ["process"], indirect=True)
"""Where a container would show nothing new: an engine says the same in it."""

MISSING_MODEL: tuple[Any, ...] = ((), "no-such-org/no-such-model", {}, {}, FailureKind.MODEL_NOT_FOUND, "")


@pytest.mark.parametrize(
    ("place", "extra_args", "model", "env", "parameters", "kind", "words"),
    [
        ("process", ("--max-num-sequences", "4"), None, {}, {}, FailureKind.BAD_FLAG, "--max-num-sequences"),
        ("process", *MISSING_MODEL),
        pytest.param("container", *MISSING_MODEL, marks=pytest.mark.docker),
        ("process", (), None, {}, {"tp-size": 3}, FailureKind.NOT_DIVISIBLE, "attention heads (4)"),
        ("process", (), None, {"VLLM_CPU_KVCACHE_SPACE": "100000"}, EAGER, FailureKind.OUT_OF_MEMORY_AT_START, "GiB"),
    ],
    ids=["bad flag", "missing model", "missing model in a container", "not divisible", "absurd memory"],
    indirect=["place"],
)
def test_a_start_that_fails_is_named_in_the_engines_words(
    measure: Measure,
    place: Any,
    extra_args: tuple[str, ...],
    model: str | None,
    env: dict[str, str],
    parameters: dict[str, Value],
    kind: FailureKind,
    words: str,
) -> None:
    override = {} if model is None else {"model": model}
    measurement = measure(*extra_args, env=env, **override, **parameters)
    assert measurement.failure is not None
    assert (measurement.failure.kind, words in measurement.failure.message) == (kind, True), measurement.failure
    assert measurement.failure.remedy
    assert place.leftovers() == []


@ON_THIS_MACHINE
def test_a_port_that_is_taken_is_named(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setattr(ports, "free_port", lambda: listener.getsockname()[1])
        measurement = measure(**EAGER)
    assert measurement.failure is not None
    assert measurement.failure.kind is FailureKind.PORT_IN_USE


def test_a_worker_killed_under_load_is_a_crash_and_keeps_the_first_load_point(measure: Measure, place: Any) -> None:
    workers: list[int] = []

    def kill_a_worker(progress: Progress) -> None:
        # found one load point before it is killed: listing the processes of a container may outlast a load point
        if (progress.stage, progress.position) == ("measuring", 1):
            workers.extend(pid for pid, title in place.running().items() if "VLLM::Worker" in title)
        if (progress.stage, progress.position) == ("warming-up", 2):
            [worker] = workers
            os.kill(worker, signal.SIGKILL)

    measurement = measure(observe=kill_a_worker, **EAGER)
    assert measurement.failure is not None
    assert measurement.failure.kind is FailureKind.CRASHED_UNDER_LOAD
    assert "died unexpectedly" in measurement.failure.message
    assert len(measurement.load_points) == 1
    assert place.leftovers() == []
