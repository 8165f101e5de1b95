"""A run that is interrupted cleans up, keeps what it measured, and can go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

COMMAND = Path(sys.executable).parent / "autotune"
AT_ONCE = ("--set", "runtime.extra_args=[--load-seconds, '0']")
SHORT = ("--profile", "quick-test", "--duration", "1", "--max-duration", "2", "--warmup", "0.1", *AT_ONCE)


JUDGED = (0, 1)
"""A machine that is busy with other tests may leave a second of load without a verdict."""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(COMMAND), "run", *SHORT, *arguments], cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"the run ended without saying '{text}'")


def descendants(pid: int) -> set[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    descendants: set[int] = set()
    generation = {pid}
    while generation:
        generation = {child for child, parent in parents.items() if parent in generation} - descendants
        descendants |= generation
    return descendants


def all_gone(pids: set[int]) -> bool:
    for _ in range(600):
        remaining = {pid for pid in pids if Path(f"/proc/{pid}").exists()}
        if not remaining:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_an_interrupted_run_leaves_no_process_and_keeps_what_is_finished(tmp_path, signals):
    process = start(tmp_path)
    wait_for(process, "[2/2] load point 1 of 1")
    children = descendants(process.pid)
    assert children
    for number in signals:
        os.kill(process.pid, number)
        time.sleep(0.02)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert not out
    assert "1 finished trial is kept" in err
    assert err.count("Interrupted") == 1
    assert all_gone(children)

    run = next((tmp_path / "runs").iterdir())
    before = (run / "trials.jsonl").read_text()
    assert len(before.splitlines()) == 1
    if signals == [signal.SIGINT, signal.SIGINT]:  # the record is the same after each
        goes_on(run, before)


def goes_on(run: Path, before: str) -> None:
    """The run is resumed, and does only what it lacks."""
    resumed = subprocess.run(
        [str(COMMAND), "run", "--resume", run.name, "--json"],
        cwd=run.parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert resumed.returncode in JUDGED, resumed.stderr
    assert "starting" in resumed.stderr
    assert "[1/2]" not in resumed.stderr
    assert (run / "trials.jsonl").read_text().startswith(before)
    assert [trial["number"] for trial in json.loads(resumed.stdout)["trials"]] == [1, 2]


def test_a_server_that_crashes_under_load_is_a_failed_trial_and_the_run_goes_on(tmp_path):
    process = start(tmp_path, "--max-iterations", "1", "--set", "simulate.faults.crash_after=2", "--json")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    trials = json.loads(out)["trials"]
    assert [trial["failure"]["kind"] for trial in trials] == ["crashed-under-load"]
    assert "No configuration could be measured" in " ".join(err.split())


def test_a_candidate_that_does_not_fit_is_told_in_the_report_and_not_launched(tmp_path):
    sizes = ("--model", "llama-3.1-70b", "--set", "parameters.tp-size=[1, 4]", "--max-iterations", "4")
    alone = ("--set", "parameters.enable-chunked-prefill=[true]", "--set", "optimization.baseline=false")
    process = start(tmp_path, *sizes, *alone, "--json")
    out, err = process.communicate(timeout=120)
    assert process.returncode in JUDGED, err
    data = json.loads(out)
    assert [trial["candidate"]["parameters"]["tp-size"] for trial in data["trials"]] == [4]
    assert {refused["candidate"]["parameters"]["tp-size"] for refused in data["refused"]} == {1}
    report = (tmp_path / data["run"] / "report.md").read_text()
    assert "does not fit: weights need 131.4 GiB" in report
