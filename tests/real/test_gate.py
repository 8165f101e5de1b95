"""The gate on launches of a real vLLM on CPU: an unchanged winner is never worse, a crippled one is."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.gateways.bench_command import AUTOTUNE
from tests.gateways.gateway_servers import IN_PROCESS_EXECUTOR
from tests.real.recorded_run import record_run

pytestmark = pytest.mark.engine

TOLERANCE = "50%"
"""What an unchanged side would have to lose in both of its launches, and in none of the other's between them.

One request at a time instead of sixteen loses four fifths, and up to five pairs are launched to tell: launches that
differ by a factor of two, as on a busy machine, turn neither verdict around.
"""

LOAD = {
    "traffic_scenarios": ["D(50,100)"],
    "num_concurrency": [16],
    "duration": 240,
    "max_duration": 240,
    # as many as none is refused for: of more, the two halves are compared, which differ on a busy machine
    "max_requests": 19,
    "warmup": 0,
}
PASSED, WORSE, UNCLEAR = 0, 1, 4


@pytest.fixture
def config(vllm: Path, tiny_model: Path) -> dict[str, Any]:
    """A run without targets, so that every request attains them and the gate decides by the throughput."""
    one_core = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    return {
        "task_name": "gated",
        "model": {"id_or_path": str(tiny_model)},
        "base_runtime": "vllm",
        "runtime": {
            "executable": str(vllm),
            "env": {"HF_HUB_OFFLINE": "1", **one_core},
            "extra_args": ["--distributed-executor-backend", IN_PROCESS_EXECUTOR],
        },
        "deployment": {"mode": "process"},
        "benchmark": LOAD,
        "optimization": {"objective": "maximize_throughput"},
    }


FIGURES = {"total throughput per GPU of the winner": "throughput", "attainment at the baseline's load": "attainment"}


def read_gate(baseline: Path, new: Path, launches: int, folder: Path) -> tuple[int, dict[str, list[str]]]:
    """The exit code, and what the case of each gated figure holds in the JUnit file: failure, skipped or nothing."""
    report = folder / "gate.xml"
    options = ["--gate", "--launches", str(launches), "--tolerance", TOLERANCE, "--junit", str(report)]
    command = [AUTOTUNE, "compare", str(baseline), str(new), *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800)
    assert report.exists(), done.stderr
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return done.returncode, {FIGURES[case.attrib["name"]]: [child.tag for child in case] for case in cases}


def test_an_unchanged_winner_is_never_worse_and_a_crippled_one_is(config: dict[str, Any], tmp_path: Path) -> None:
    usual: dict[str, Any] = {"cuda-graph": [False], "max-running-requests": [16]}
    before = record_run({**config, "parameters": usual}, tmp_path / "before").path
    exit_code, cases = read_gate(before, before, 2, tmp_path)
    assert exit_code in (PASSED, UNCLEAR)
    assert cases["throughput"] in ([], ["skipped"])
    assert cases["attainment"] == []

    crippled = {**usual, "max-running-requests": [1]}
    after = record_run({**config, "parameters": crippled}, tmp_path / "after").path
    assert read_gate(before, after, 5, tmp_path) == (WORSE, {"throughput": ["failure"], "attainment": []})
