"""The gate on launches of a real vLLM on CPU: an unchanged winner is never worse, a crippled one is."""

from __future__ import annotations

import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.gateways.bench_command import AUTOTUNE
from tests.gateways.gateway_servers import IN_PROCESS_EXECUTOR

pytestmark = pytest.mark.engine

TOLERANCE = "40%"
"""An unchanged side would have to lose this in every launch of its own, and in none of the other's between them.

One request at a time instead of sixteen loses more than 80%: neither verdict hangs on how busy the machine is.
"""
CONCURRENCY = 16
PASSED, WORSE, UNCLEAR = 0, 1, 4


@pytest.fixture
def run_with(vllm: Path, tiny_model: Path, tmp_path: Path):
    """Run one candidate, with this many requests at a time in the server; the folder of its run."""
    (tmp_path / "vllm.yaml").write_text(
        f"""
runtime:
  executable: {vllm}
  env: {{HF_HUB_OFFLINE: "1", VLLM_CPU_KVCACHE_SPACE: "1", VLLM_CPU_OMP_THREADS_BIND: nobind, OMP_NUM_THREADS: "1"}}
  extra_args: [--distributed-executor-backend, {IN_PROCESS_EXECUTOR}]
optimization: {{baseline: false, objective: maximize_throughput}}
benchmark: {{max_requests: 48, duration: 240, max_duration: 240, warmup: 1}}
"""
    )

    def run(running_requests: int) -> Path:
        output = tmp_path / f"at-most-{running_requests}"
        parameters = f"parameters={{cuda-graph: [false], max-running-requests: [{running_requests}]}}"
        arguments = ["--profile", "quick-test", "--runtime", "vllm", "--deployment", "process"]
        arguments += ["--model", str(tiny_model), "-c", str(tmp_path / "vllm.yaml"), "--set", parameters]
        arguments += ["--scenario", "D(50,20)", "--concurrency", str(CONCURRENCY), "--output", str(output)]
        done = autotune("run", *arguments, "--fail-on", "none", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        [folder] = output.iterdir()
        return folder

    return run


def autotune(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([AUTOTUNE, *arguments], cwd=folder, capture_output=True, text=True, timeout=900)


def gate(baseline: Path, new: Path, launches: int, folder: Path) -> tuple[int, dict[str, list[str]]]:
    """The exit code, and for each gated figure of the JUnit file the names of what it holds: failure, skipped."""
    report = folder / "gate.xml"
    options = ["--gate", "--launches", str(launches), "--tolerance", TOLERANCE, "--junit", str(report)]
    done = autotune("compare", str(baseline), str(new), *options, folder=folder)
    assert report.exists(), done.stderr
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return done.returncode, {case.attrib["name"]: [child.tag for child in case] for case in cases}


def test_an_unchanged_winner_is_never_worse_and_a_crippled_one_is(run_with, tmp_path: Path) -> None:
    before = run_with(CONCURRENCY)
    exit_code, cases = gate(before, before, 2, tmp_path)
    assert exit_code in (PASSED, UNCLEAR)
    assert cases
    assert all("failure" not in children for children in cases.values()), cases

    crippled = run_with(1)
    exit_code, cases = gate(before, crippled, 3, tmp_path)
    assert exit_code == WORSE
    assert any("failure" in children for children in cases.values()), cases
