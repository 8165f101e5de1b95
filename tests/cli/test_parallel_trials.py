"""Trials and runs side by side on four GPUs that a stand-in driver lists, on a stand-in engine that uses none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.processes

DRIVER = '''
"""Four idle GPUs."""
from types import SimpleNamespace
class NVMLError(Exception): pass
NVML_P2P_CAPS_INDEX_NVLINK, NVML_P2P_STATUS_OK = 2, 0
NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2
def nvmlInit(): pass
def nvmlShutdown(): pass
def nvmlSystemGetDriverVersion(): return "1.0"
def nvmlDeviceGetCount(): return 4
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetName(gpu): return "NVIDIA H100 80GB HBM3"
def nvmlDeviceGetUUID(gpu): return f"GPU-{PREFIX}-{gpu}"
def nvmlDeviceGetMemoryInfo(gpu): return SimpleNamespace(total=80 << 30, free=80 << 30, used=0)
def nvmlDeviceGetUtilizationRates(gpu): return SimpleNamespace(gpu=0)
def nvmlDeviceGetP2PStatus(one, other, index): return 0
def __getattr__(name):
    if name.startswith("nvml"):
        def unsupported(*arguments): raise NVMLError("not supported")
        return unsupported
    raise AttributeError(name)
'''
ENGINE = """#!/bin/sh
case "$*" in *--help*) exit 1;; esac
exec {python} -m autotuner.simulate.server --model llama-3.1-8b --host 127.0.0.1 --port "$6" --load-seconds 0
"""
SHORT = ("--duration", "1", "--max-duration", "1", "--warmup", "0", "--concurrency", "2", "--scenario", "D(20,5)")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a machine whose driver lists four GPUs of this test alone, and whose vLLM is the simulated engine."""
    (tmp_path / "driver").mkdir()
    (tmp_path / "driver" / "pynvml.py").write_text(f"PREFIX = {os.urandom(4).hex()!r}\n{DRIVER}")
    engine = tmp_path / "vllm"
    engine.write_text(ENGINE.format(python=sys.executable))
    engine.chmod(0o755)
    home = {name: str(tmp_path / "home") for name in ("AUTOTUNE_CONFIG_HOME", "AUTOTUNE_DATA_HOME", "XDG_CACHE_HOME")}
    return {**os.environ, **home, "PYTHONPATH": str(tmp_path / "driver")}


def start(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [
        *(sys.executable, "-m", "autotuner", "run", "--profile", "quick-test", "--runtime", "vllm"),
        *("--deployment", "process", "--set", f"runtime.executable={folder / 'vllm'}", "--model", "llama-3.1-8b"),
        *("--strategy", "grid_search", *SHORT, *arguments),
    ]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end(process: subprocess.Popen[str]) -> None:
    _, err = process.communicate(timeout=120)
    assert process.returncode in (0, 1), err  # 1: no verdict in so short a window on a busy machine


def trials(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in folder.glob("**/[!.]*/trials.jsonl") for line in path.read_text().splitlines()]


def devices(trial: dict[str, Any]) -> Sequence[int]:
    indexes: list[int] = trial["measurement"]["spec"]["devices"]
    return indexes


def assert_disjoint(finished: Sequence[dict[str, Any]]) -> None:
    for one, other in combinations(finished, 2):
        if one["started"] < other["ended"] and other["started"] < one["ended"]:
            assert not set(devices(one)) & set(devices(other))


def test_parallel_trials_survive_a_kill_and_a_resumed_run_finishes_on_disjoint_gpus(tmp_path, environment):
    space = ("--set", "parameters={tp-size: [1, 2], block-size: [16, 32]}")
    search_alone = ("--set", "optimization={baseline: false, confirm: 0, max_iterations: 4}")
    process = start(tmp_path, environment, *space, *search_alone, "--parallel-trials", "3")
    (recorded,) = wait_for(lambda: list(tmp_path.glob("runs/[!.]*/trials.jsonl")))
    wait_for(lambda: recorded.read_text().count("\n"))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = trials(tmp_path)
    assert 1 <= len(before) < 4
    wait_for(lambda: not started_from(tmp_path))
    resumed = subprocess.Popen(
        [sys.executable, "-m", "autotuner", "run", "--resume"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end(resumed)
    finished = trials(tmp_path)
    assert finished[: len(before)] == before
    candidates = [json.dumps(trial["candidate"]["parameters"]) for trial in finished]
    assert len(candidates) == len(set(candidates)) == 4
    assert sorted(trial["number"] for trial in finished) == list(range(1, len(finished) + 1))
    assert all(len(devices(trial)) == trial["candidate"]["parameters"]["tp-size"] for trial in finished)
    assert any(trial["parallel_trials"] for trial in finished)
    assert_disjoint(finished)


def test_three_runs_at_once_share_four_gpus_without_sharing_one(tmp_path, environment):
    one = ("--set", "parameters={tp-size: [1]}", "--max-iterations", "1", "--set", "optimization.confirm=0")
    for process in [start(tmp_path, environment, *one, "--output", f"runs-{number}") for number in range(3)]:
        end(process)
    finished = trials(tmp_path)
    assert len(finished) == 3
    assert_disjoint(finished)
    assert all(len(devices(trial)) == 1 for trial in finished)


def wait_for(condition: Any, seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def started_from(folder: Path) -> list[str]:
    """Processes whose working folder is `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink() == folder:
                found.append(entry.name)
        except OSError:
            continue
    return found
