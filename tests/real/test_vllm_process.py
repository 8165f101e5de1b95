"""A real vLLM as a process on CPU: a whole evaluation, its failures by name, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotuner.core import Candidate, FailureKind, Measurement, Observer, Progress, Value, unobserved
from autotuner.deploy import render_shell
from autotuner.engines import engine
from autotuner.engines.parameters import canonical
from autotuner.evaluate.measured import MeasuredEvaluator
from autotuner.experiment import Benchmark, Experiment, Model, Runtime
from autotuner.launchers import launcher, ports, ready
from autotuner.launchers.external import ExternalServer
from autotuner.search.launch import FixedCourse

pytestmark = pytest.mark.engine

EAGER: dict[str, Value] = {"cuda-graph": False}
"""Halves the start: nothing is compiled."""

Processes = Callable[[], dict[int, str]]
Measure = Callable[..., Measurement]


@pytest.fixture
def measure(vllm: Path, tiny_model: Path, processes: Processes, tmp_path: Path) -> Measure:
    """Measure one candidate on a real vLLM; two short load points unless told otherwise."""

    def run(
        *extra_args: str,
        model: str = str(tiny_model),
        env: dict[str, str] | None = None,
        observe: Observer = unobserved,
        **parameters: Value,
    ) -> Measurement:
        given: dict[str, Any] = {
            "task_name": "real",
            "model": Model(id_or_path=model),
            "base_runtime": "vllm",
            "runtime": Runtime(executable=str(vllm), extra_args=extra_args, env={"HF_HUB_OFFLINE": "1", **(env or {})}),
            "parameters": {},
            "benchmark": Benchmark(traffic_scenarios=("D(100,50)",), num_concurrency=(1, 4), duration=6, warmup=2),
        }
        evaluator = MeasuredEvaluator(Experiment(**given), engine("vllm"), launcher("process"), render_shell, observe)
        return evaluator.evaluate(Candidate("vllm", parameters), FixedCourse(evaluator.workload), tmp_path)

    return run


def test_a_whole_evaluation_on_a_real_engine(measure: Measure, processes: Processes, tmp_path: Path) -> None:
    found = measure(**EAGER, **{"mem-fraction-static": 0.85, "max-running-requests": 8})
    assert found.failure is None
    assert found.source == "measured"
    assert found.server["version"] == "0.32.0"
    assert found.server["kv_tokens"] > 100_000
    assert [result.load_point.concurrency for result in found.load_points] == [1, 4]
    for result in found.load_points:
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
    assert found.spec is not None
    with subprocess.Popen(["sh", tmp_path / "command.sh"], start_new_session=True) as server:
        try:
            again = ExternalServer(f"http://127.0.0.1:{found.spec.port}")
            ready.wait_until_ready(again, ready_path="/health", model=found.spec.served_model, timeout=200)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while processes() and time.monotonic() < deadline:
        time.sleep(0.1)


def test_its_own_help_has_every_flag_we_use(vllm: Path) -> None:
    table = engine("vllm").flags(Runtime(executable=str(vllm)))
    assert table.origin == "help"
    assert len(table.flags) > 300
    for parameter in canonical().values():
        for flag in parameter.forms["vllm"].flags:
            assert table.find(flag), flag
    assert table.flag("--max-num-seqs").type == "int"
    assert "fp8" in table.flag("--kv-cache-dtype").choices


@pytest.mark.parametrize(
    ("extra_args", "model", "env", "parameters", "kind", "words"),
    [
        (("--max-num-sequences", "4"), None, {}, {}, FailureKind.BAD_FLAG, "--max-num-sequences"),
        ((), "/nowhere/a-model", {}, {}, FailureKind.MODEL_NOT_FOUND, "/nowhere/a-model"),
        ((), "no-such-org/no-such-model", {}, {}, FailureKind.MODEL_NOT_FOUND, ""),
        ((), None, {}, {"tp-size": 3}, FailureKind.NOT_DIVISIBLE, "attention heads (4)"),
        ((), None, {"VLLM_CPU_KVCACHE_SPACE": "100000"}, EAGER, FailureKind.OUT_OF_MEMORY_AT_START, "GiB"),
    ],
    ids=["bad flag", "missing folder", "missing repository", "not divisible", "absurd memory"],
)
def test_a_start_that_fails_is_named_in_the_engines_words(
    measure: Measure,
    processes: Processes,
    extra_args: tuple[str, ...],
    model: str | None,
    env: dict[str, str],
    parameters: dict[str, Value],
    kind: FailureKind,
    words: str,
) -> None:
    named = {} if model is None else {"model": model}
    found = measure(*extra_args, env=env, **named, **parameters)
    assert found.failure is not None
    assert (found.failure.kind, words in found.failure.said) == (kind, True), found.failure
    assert found.failure.remedy
    assert processes() == {}


def test_a_port_that_is_taken_is_named(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(ports, "free_port", lambda: taken.getsockname()[1])
        found = measure(**EAGER)
    assert found.failure is not None
    assert found.failure.kind is FailureKind.PORT_IN_USE


def test_a_worker_killed_under_load_is_a_crash_and_keeps_the_first_load_point(
    measure: Measure, processes: Processes
) -> None:
    def kill_a_worker(progress: Progress) -> None:
        if (progress.stage, progress.position) == ("measuring", 2):
            [worker] = [pid for pid, title in processes().items() if title.startswith("VLLM::Worker")]
            os.kill(worker, signal.SIGKILL)

    found = measure(observe=kill_a_worker, **EAGER)
    assert found.failure is not None
    assert found.failure.kind is FailureKind.CRASHED_UNDER_LOAD
    assert "died unexpectedly" in found.failure.said
    assert len(found.load_points) == 1
    assert processes() == {}


def test_an_interruption_leaves_no_process(measure: Measure, processes: Processes) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.stage == "measuring":
            assert any("VLLM::Worker" in title for title in processes().values())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(observe=interrupt, **EAGER)
    assert processes() == {}
