"""Whole runs of the installed command, as the tests of every executor on other hosts need them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

GRID = (
    *("--deployment", "process", "--strategy", "grid_search", "--warmup", "0"),
    *("--set", "optimization.baseline=false", "--set", "optimization.confirm=0"),
    *("--set", "parameters.mem-fraction-static=[0.9]", "--set", "parameters.enable-chunked-prefill=[true]"),
)
"""A search of as many launches as there are values of max-running-requests."""

RANKED = (
    *GRID,
    *("--runtime", "vllm", "--evaluator", "simulated", "--model", "llama-3.1-8b", "--gpu", "H100"),
    *("--set", "parameters.tp-size=[2]", "--set", "parameters.max-running-requests=[2,4,8,12,16,32]"),
    *("--total-gpus", "4", "--concurrency", "32", "--duration", "5"),
)


def autotune(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "autotuner", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)


def wait_until(condition: Callable[[], Any], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def ranking(done: subprocess.CompletedProcess[str]) -> Any:
    """The candidates in their order, with their figures."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["ranking"]
