"""A real SGLang on CPU as a process: the whole job, what can go wrong, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from autotuner.core import FailureKind, Progress
from autotuner.engines import engine
from autotuner.engines.parameters import canonical_parameters
from autotuner.experiment import Runtime
from tests.real.sglang_on_cpu import ENVIRONMENT, SMALL_CACHE, measure_sglang
from tests.real.short_load import SHORT_WINDOWS

pytestmark = pytest.mark.engine

COMMAND = str(Path(sys.executable).parent / "autotune")
MEMORY_LIMIT_KIB = 15_000_000
"""Address space of a server that asks for more memory than there is, so that it and nothing else runs out."""

Processes = Callable[[], dict[int, str]]


@dataclass(frozen=True)
class FailingStart:
    """A start that SGLang ends by itself, and what is to be said of it."""

    kind: FailureKind
    words: str
    extra_args: tuple[str, ...] = SMALL_CACHE
    parameters: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    memory_limit: bool = False


FAILING_STARTS = {
    "tp without bound threads": FailingStart(
        FailureKind.BAD_FLAG, "SGLANG_CPU_OMP_THREADS_BIND is not set", parameters={"tp-size": 2}
    ),
    "bad flag": FailingStart(FailureKind.BAD_FLAG, "--no-such-flag", ("--no-such-flag", "3")),
    "bad value": FailingStart(FailureKind.BAD_FLAG, "'float13'", ("--dtype", "float13")),
    "missing model": FailingStart(FailureKind.MODEL_NOT_FOUND, "", model="no-such-org/no-such-model"),
    "hardly any memory": FailingStart(
        FailureKind.OUT_OF_MEMORY_AT_START, "--mem-fraction-static=0.0001", (), {"mem-fraction-static": 0.0001}
    ),
    "more memory than there is": FailingStart(
        FailureKind.OUT_OF_MEMORY_AT_START, "can't allocate", (), {"mem-fraction-static": 1.5}, memory_limit=True
    ),
    "context too long": FailingStart(
        FailureKind.BAD_FLAG, "context_length (1000000) is greater", parameters={"max-model-len": 1_000_000}
    ),
    "graphs that torch_native lacks": FailingStart(
        FailureKind.CRASHED_AT_START, "init_cpu_graph_state", parameters={"enable-torch-compile": True}
    ),
}


@pytest.mark.parametrize("name", FAILING_STARTS)
def test_a_start_that_fails_is_named_in_sglangs_words(
    sglang: Path, tiny_model: Path, processes: Processes, tmp_path: Path, name: str
) -> None:
    expected = FAILING_STARTS[name]
    if expected.memory_limit:
        limited = tmp_path / "sglang-with-little-memory"
        limited.write_text(f'#!/bin/bash\nulimit -v {MEMORY_LIMIT_KIB}\nexec {sglang} "$@"\n')
        limited.chmod(0o755)
        sglang = limited
    model = expected.model or str(tiny_model)
    measurement = measure_sglang(
        sglang, model, tmp_path, *expected.extra_args, env=dict(expected.env), **expected.parameters
    )
    failure = measurement.failure
    assert failure is not None
    assert (failure.kind, expected.words in failure.message) == (expected.kind, True), failure
    assert "dmesg" not in failure.remedy
    assert processes() == {}


def test_a_scheduler_killed_under_load_is_a_crash_and_keeps_the_first_load_point(
    sglang: Path, tiny_model: Path, processes: Processes, tmp_path: Path
) -> None:
    schedulers: list[int] = []

    def kill_the_scheduler(progress: Progress) -> None:
        # found one load point before it is killed: listing processes may outlast a load point
        if (progress.stage, progress.position) == ("measuring", 1):
            schedulers.extend(pid for pid, title in processes().items() if "sglang::scheduler" in title)
        if (progress.stage, progress.position) == ("warming-up", 2):
            [scheduler] = schedulers
            os.kill(scheduler, signal.SIGKILL)

    measurement = measure_sglang(sglang, str(tiny_model), tmp_path, *SMALL_CACHE, observe=kill_the_scheduler)
    assert measurement.server["version"] == "0.5.23"
    assert measurement.server["kv_tokens"] == 65_536
    assert measurement.failure is not None
    assert measurement.failure.kind is FailureKind.CRASHED_UNDER_LOAD
    assert len(measurement.load_points) == 1
    assert processes() == {}


def test_a_server_stopped_from_outside_is_not_blamed_on_memory(
    sglang: Path, tiny_model: Path, processes: Processes, tmp_path: Path
) -> None:
    servers: list[int] = []

    def stop_the_server(progress: Progress) -> None:
        if progress.stage == "ready":
            servers.extend(
                pid for pid, title in processes().items() if "sglang serve" in title or "bin/sglang" in title
            )
        if (progress.stage, progress.position) == ("warming-up", 1):
            os.kill(min(servers), signal.SIGTERM)

    measurement = measure_sglang(sglang, str(tiny_model), tmp_path, *SMALL_CACHE, observe=stop_the_server)
    assert measurement.failure is not None
    assert measurement.failure.kind is FailureKind.CRASHED_UNDER_LOAD
    assert "HTTP/1.1" not in measurement.failure.message
    assert "dmesg" not in measurement.failure.remedy
    assert processes() == {}


def test_quick_test_measures_what_this_machine_can_run(
    sglang: Path, tiny_model: Path, processes: Processes, tmp_path: Path
) -> None:
    arguments = [
        "--profile",
        "quick-test",
        "--runtime",
        "sglang",
        "--deployment",
        "process",
        "--model",
        str(tiny_model),
    ]
    settings = ["--set", f"runtime.executable={sglang}", "--set", f"runtime.extra_args={json.dumps(SMALL_CACHE)}"]
    result = subprocess.run(
        [COMMAND, "run", *arguments, *settings, *SHORT_WINDOWS],
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert result.returncode == 0, result.stderr
    assert "measured" in result.stdout
    assert "simulated" not in result.stdout.lower()
    assert processes() == {}

    run = next((tmp_path / "runs").iterdir())
    trials = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    assert trials
    assert [trial["measurement"]["failure"] for trial in trials] == [None] * len(trials)
    assert {trial["measurement"]["server"]["version"] for trial in trials} == {"0.5.23"}
    for trial in trials:
        for result_of_load in trial["measurement"]["load_points"]:
            exact = {check["name"]: check["ok"] for check in result_of_load["validity"] if "length" in check["name"]}
            assert exact
            assert all(exact.values()), exact
    assert (run / "best" / "command.sh").read_text() in result.stdout


def test_its_own_help_has_every_flag_we_use(sglang: Path) -> None:
    table = engine("sglang").flags(Runtime(executable=str(sglang)))
    assert (table.origin, table.version) == ("help", "0.5.23")
    assert len(table.flags) > 300
    for parameter in canonical_parameters().values():
        if option := parameter.by_engine.get("sglang"):
            for flag in option.flags:
                assert table.find(flag), flag
