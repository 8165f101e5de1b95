"""Failures that are retried, and starts that are not waited for."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autotuner.core import Candidate, FailureKind
from autotuner.deploy.shell import render_shell
from autotuner.engines import engine
from autotuner.evaluate.measured import TRANSIENT_FAILURES, MeasuredEvaluator
from autotuner.experiment import Experiment
from autotuner.launchers import launcher
from autotuner.search.launch import ListedLoads

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("forked_load_workers")]

FIRST_FAILS = f"""#!/bin/sh
if [ ! -e "$0.tried" ]; then touch "$0.tried"; echo "ERROR: %s"; exit 1; fi
exec {sys.executable} "$@"
"""
ALWAYS_FAILS = """#!/bin/sh
echo x >> "$0.tried"; echo "ERROR: %s"; exit 1
"""
HANGS = """#!/bin/sh
echo "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"; exec sleep 600
"""


def experiment(executable: Path, **runtime) -> Experiment:
    return Experiment.model_validate(
        {
            "task_name": "t",
            "model": {"id_or_path": "llama-3.1-8b"},
            "base_runtime": "sim",
            "runtime": {"executable": str(executable), "extra_args": ["--load-seconds", "0"], **runtime},
            "parameters": {},
            "benchmark": {
                "traffic_scenarios": ["D(20,5)"],
                "num_concurrency": [2],
                "duration": 0.3,
                "warmup": 0.0,
            },
        }
    )


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "program"
        path.write_text(text)
        path.chmod(0o755)
        return path

    return write


def evaluate(experiment: Experiment, folder: Path):
    evaluator = MeasuredEvaluator(experiment, engine("sim"), launcher("process"), render_shell)
    return evaluator.evaluate(Candidate("sim"), ListedLoads(experiment.workload()), folder)


@pytest.mark.parametrize("words", ["[Errno 98] Address already in use", "NCCL error: unhandled system error"])
def test_a_transient_failure_is_retried_once(program, tmp_path, words):
    measurement = evaluate(experiment(program(FIRST_FAILS % words)), tmp_path / "trial")
    assert measurement.failure is None
    assert len(measurement.load_points) == 1
    assert words in (tmp_path / "trial" / "server-first.log").read_text()
    assert words not in (tmp_path / "trial" / "server.log").read_text()


def test_a_transient_failure_is_not_retried_twice(program, tmp_path):
    path = program(ALWAYS_FAILS % "Address already in use")
    failure = evaluate(experiment(path), tmp_path / "trial").failure
    assert failure is not None
    assert failure.kind is FailureKind.PORT_IN_USE
    assert Path(f"{path}.tried").read_text().splitlines() == ["x", "x"]


def test_a_failure_that_would_recur_is_not_retried(program, tmp_path):
    path = program(ALWAYS_FAILS % "CUDA out of memory")
    failure = evaluate(experiment(path), tmp_path / "trial").failure
    assert failure is not None
    assert failure.kind is FailureKind.OUT_OF_MEMORY_AT_START
    assert failure.kind not in TRANSIENT_FAILURES
    assert Path(f"{path}.tried").read_text().splitlines() == ["x"]


def test_with_fail_fast_a_start_ends_at_the_first_failure_in_the_log(program, tmp_path):
    """The program logs a failure and keeps running for ten minutes, as engines with many processes do."""
    subject = experiment(program(HANGS), fail_fast=True, start_timeout=300)
    measurement = evaluate(subject, tmp_path / "trial")
    assert measurement.failure is not None
    assert measurement.failure.kind is FailureKind.OUT_OF_MEMORY_AT_START
    assert measurement.timings["start"] < subject.runtime.start_timeout


def test_without_fail_fast_a_running_server_is_waited_for(program, tmp_path):
    subject = experiment(program(HANGS), start_timeout=0.5)
    failure = evaluate(subject, tmp_path / "trial").failure
    assert failure is not None
    assert failure.kind is FailureKind.OUT_OF_MEMORY_AT_START


def test_a_secret_that_the_server_prints_is_masked(program, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_PrintedByMistake")
    path = program('#!/bin/sh\necho "ERROR: bad token $HF_TOKEN"; exit 1\n')
    failure = evaluate(experiment(path), tmp_path / "trial").failure
    assert failure is not None
    assert "bad token *****" in failure.message
    for file in (tmp_path / "trial").rglob("*"):
        assert b"hf_PrintedByMistake" not in file.read_bytes()
