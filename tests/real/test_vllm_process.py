"""A real vLLM as a process on CPU: a whole evaluation, what it says of itself, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autotuner.core import FailureKind, Measurement, Progress, Value
from autotuner.engines import engine
from autotuner.engines.parameters import canonical_parameters
from autotuner.experiment import Runtime
from autotuner.launchers import ready
from autotuner.launchers.external import ExternalServer

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("place", ["process"], indirect=True)]

EAGER: dict[str, Value] = {"cuda-graph": False}
"""Halves the start: nothing is compiled."""

Processes = Callable[[], dict[int, str]]
Measure = Callable[..., Measurement]


def test_a_whole_evaluation_on_a_real_engine(measure: Measure, processes: Processes, tmp_path: Path) -> None:
    measurement = measure(**EAGER, **{"mem-fraction-static": 0.85, "max-running-requests": 8})
    assert measurement.failure is None
    assert measurement.source == "measured"
    assert measurement.server["version"] == "0.32.0"
    assert measurement.server["kv_tokens"] > 100_000
    assert [result.load_point.concurrency for result in measurement.load_points] == [1, 4]
    for result in measurement.load_points:
        figures = result.metrics
        assert figures.requests >= 3
        assert figures.errors == {}
        assert figures.ttft is not None
        assert figures.tpot is not None
        assert 0 < figures.tpot.p50 < figures.ttft.p50
        exact = {check.name: check.ok for check in result.validity if "length" in check.name}
        assert exact
        assert all(exact.values()), exact
    assert processes() == {}

    # pasted into a shell, the printed command starts the same server
    assert measurement.spec is not None
    with subprocess.Popen(["sh", tmp_path / "command.sh"], start_new_session=True) as server:
        try:
            again = ExternalServer(f"http://127.0.0.1:{measurement.spec.port}")
            ready.wait_until_ready(again, ready_path="/health", model=measurement.spec.served_model, timeout=200)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while processes() and time.monotonic() < deadline:
        time.sleep(0.1)


def test_its_own_help_has_every_flag_we_use(place: object, vllm: Path) -> None:
    table = engine("vllm").flags(Runtime(executable=str(vllm)))
    assert table.origin == "help"
    assert len(table.flags) > 300
    for parameter in canonical_parameters().values():
        for flag in parameter.by_engine["vllm"].flags:
            assert table.find(flag), flag
    assert table.require("--max-num-seqs").type == "int"
    assert "fp8" in table.require("--kv-cache-dtype").choices


def test_an_interruption_leaves_no_process(measure: Measure, processes: Processes) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.stage == "measuring":
            assert any("VLLM::Worker" in title for title in processes().values())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(observe=interrupt, **EAGER)
    assert processes() == {}


def test_a_folder_that_is_not_there_is_named_in_the_engines_words(measure: Measure) -> None:
    measurement = measure(model="/nowhere/a-model")
    assert measurement.failure is not None
    assert measurement.failure.kind is FailureKind.MODEL_NOT_FOUND
    assert "/nowhere/a-model" in measurement.failure.message
