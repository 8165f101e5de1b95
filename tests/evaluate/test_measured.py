"""Whole measurements of the simulated engine, a real server with computed step times."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from autotuner.core import Candidate, Failure, FailureKind, Measurement, Progress, Value
from autotuner.deploy.shell import render_shell
from autotuner.engines import engine
from autotuner.engines.sim import Sim
from autotuner.evaluate import measured
from autotuner.evaluate.measured import MeasuredEvaluator
from autotuner.experiment import (
    Benchmark,
    Experiment,
    FaultOptions,
    Model,
    Optimization,
    Runtime,
    SimulationOptions,
)
from autotuner.launchers import launcher, ready
from autotuner.launchers.external import ExternalServer
from autotuner.load import records
from autotuner.search.launch import ListedLoads

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("forked_load_workers")]

QUICK = ("--load-seconds", "0")


def experiment(**changed: Any) -> Experiment:
    """Two load points of ten requests each, on a server that starts at once."""
    options: dict[str, Any] = {
        "task_name": "t",
        "model": Model(id_or_path="llama-3.1-8b"),
        "base_runtime": "sim",
        "runtime": Runtime(extra_args=QUICK),
        "parameters": {},
        "benchmark": Benchmark(
            traffic_scenarios=("D(32,4)",),
            num_concurrency=(1, 2),
            duration=5,
            warmup=0,
            max_requests=10,
        ),
    }
    return Experiment(**options | changed)


def faults(**options: Any) -> SimulationOptions:
    return SimulationOptions(faults=FaultOptions(**options))


def measure(
    folder: Path, subject: Experiment, progress_reports: list[Progress] | None = None, **parameters: Value
) -> Measurement:
    server_launcher = launcher(subject.deployment.mode, subject.deployment)
    observe = progress_reports.append if progress_reports is not None else lambda progress: None
    evaluator = MeasuredEvaluator(subject, engine(subject.base_runtime), server_launcher, render_shell, observe)
    return evaluator.evaluate(
        Candidate(subject.base_runtime, parameters), ListedLoads(evaluator.workload), folder, trial_number=3
    )


def failure(measurement: Measurement) -> Failure:
    assert measurement.failure is not None
    return measurement.failure


def test_every_load_point_is_measured_on_one_launch(tmp_path: Path) -> None:
    progress_reports: list[Progress] = []
    measurement = measure(tmp_path, experiment(), progress_reports)
    assert measurement.failure is None
    assert measurement.source == "simulated"
    assert [(result.load_point.concurrency, result.metrics.requests) for result in measurement.load_points] == [
        (1, 10),
        (2, 10),
    ]
    assert all(result.source == "simulated" and result.validity for result in measurement.load_points)
    assert all(result.gpu_use is None for result in measurement.load_points)
    assert set(measurement.timings) == {"start", "load"}
    assert measurement.server["kv_tokens"] > 0
    assert (tmp_path / "server.log").read_text().count("KV cache size") == 1
    stages = [(progress.stage, progress.position) for progress in progress_reports]
    points = [(stage, number) for number in (1, 2) for stage in ("warming-up", "measuring", "measured")]
    assert stages == [("starting", 0), ("ready", 0), *points, ("stopping", 0)]
    assert {(progress.trial_number, progress.total) for progress in progress_reports} == {(3, 2)}


def test_the_trial_folder_holds_the_command_the_log_and_every_record(tmp_path: Path) -> None:
    measurement = measure(tmp_path, experiment())
    assert {path.name for path in tmp_path.iterdir()} == {
        "command.sh",
        "server.log",
        "environment.json",
        "records-1.npz",
        "records-2.npz",
    }
    for position, result in enumerate(measurement.load_points, start=1):
        saved = records.read(tmp_path / f"records-{position}.npz")
        assert saved.load_point == result.load_point
        assert sum(record.index >= 0 for record in saved.records) == result.metrics.requests


def test_the_printed_command_starts_the_same_server(tmp_path: Path) -> None:
    measurement = measure(tmp_path, experiment())
    assert measurement.spec is not None
    command = ["sh", str(tmp_path / "command.sh")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as server:
        try:
            url = f"http://127.0.0.1:{measurement.spec.port}"
            ready.wait_until_ready(
                ExternalServer(url),
                ready_path=measurement.spec.ready_path,
                model=measurement.spec.served_model,
                timeout=60,
            )
        finally:
            # ending the shell alone would leave the server running
            os.killpg(server.pid, signal.SIGTERM)


def test_nothing_secret_is_in_the_trial_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    measure(tmp_path, experiment())
    assert "HF_TOKEN" in (tmp_path / "command.sh").read_text()
    assert not [path for path in tmp_path.iterdir() if b"hf_verysecret" in path.read_bytes()]


def test_a_server_that_does_not_fit_ends_the_trial_at_its_start(tmp_path: Path) -> None:
    measurement = measure(tmp_path, experiment(), None, **{"mem-fraction-static": 0.1})
    assert failure(measurement).kind is FailureKind.OUT_OF_MEMORY_AT_START
    assert "weights need 15.0 GiB" in failure(measurement).message
    assert measurement.load_points == ()
    assert set(measurement.timings) == {"start"}
    assert measurement.spec is not None


def test_a_flag_the_engine_does_not_know_is_named(tmp_path: Path) -> None:
    measurement = measure(tmp_path, experiment(runtime=Runtime(extra_args=("--no-such-flag",))))
    assert failure(measurement).kind is FailureKind.BAD_FLAG
    assert "--no-such-flag" in failure(measurement).message


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    measurement = measure(tmp_path, experiment(model=Model(id_or_path="no-such-model")))
    assert failure(measurement).kind is FailureKind.MODEL_NOT_FOUND
    assert "no-such-model" in failure(measurement).message


def test_a_server_that_takes_too_long_to_start_times_out(tmp_path: Path) -> None:
    slow = experiment(simulate=faults(start_delay=600), runtime=Runtime(extra_args=QUICK, start_timeout=0.5))
    assert failure(measure(tmp_path, slow)).kind is FailureKind.START_TIMED_OUT


def test_a_crash_under_load_keeps_the_load_points_before(tmp_path: Path) -> None:
    # one request to be ready, ten for the first load point, and some of the second
    measurement = measure(tmp_path, experiment(simulate=faults(crash_after=14)))
    assert failure(measurement).kind is FailureKind.CRASHED_UNDER_LOAD
    assert "SIGSEGV" in failure(measurement).message
    assert [result.load_point.concurrency for result in measurement.load_points] == [1]
    assert (tmp_path / "records-2.npz").exists()


def test_a_server_that_stops_answering_is_hung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "EXIT_GRACE_SECONDS", 0.5)
    hasty = experiment().benchmark.model_copy(update={"request_timeout": 1.5})
    measurement = measure(tmp_path, experiment(simulate=faults(hang_after=14), benchmark=hasty))
    assert failure(measurement).kind is FailureKind.HUNG_UNDER_LOAD
    assert [result.load_point.concurrency for result in measurement.load_points] == [1]


def test_rejected_requests_are_errors_of_the_load_point_not_a_failure(tmp_path: Path) -> None:
    measurement = measure(tmp_path, experiment(simulate=faults(rate_limited=0.5)))
    assert measurement.failure is None
    assert any(result.metrics.errors for result in measurement.load_points)


def test_each_load_point_has_the_power_draw_of_the_launchs_gpus(tmp_path: Path, monkeypatch) -> None:
    driver = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetPowerUsage": lambda gpu: 250_000,
        "nvmlDeviceGetMemoryInfo": lambda gpu: SimpleNamespace(used=7 << 30),
        "nvmlDeviceGetUtilizationRates": lambda gpu: SimpleNamespace(gpu=80),
        "nvmlDeviceGetTotalEnergyConsumption": lambda gpu: round(time.monotonic() * 250_000),
    }
    for name, function in driver.items():
        monkeypatch.setattr(pynvml, name, function)
    monkeypatch.setattr(Sim, "local_gpu_count", lambda self, candidate: 2)
    subject = experiment(benchmark=experiment().benchmark.model_copy(update={"max_requests": None, "duration": 1.0}))
    evaluator = MeasuredEvaluator(subject, engine("sim"), launcher("process"), render_shell)
    measurement = evaluator.evaluate(Candidate("sim"), ListedLoads(evaluator.workload), tmp_path, devices=(0, 3))
    for result in measurement.load_points:
        gpu_use = result.gpu_use
        assert gpu_use is not None
        assert (gpu_use.gpus, gpu_use.max_watts, gpu_use.utilisation, gpu_use.memory_used) == (2, 500.0, 0.8, 14 << 30)
        assert gpu_use.mean_watts == pytest.approx(500.0, rel=0.01)
        assert result.joules_per_token == gpu_use.mean_watts / result.metrics.output_throughput


def test_a_trial_that_times_out_keeps_its_results(tmp_path: Path, monkeypatch) -> None:
    """An hour passes at the end of the first load point."""
    delays: list[Progress] = []
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600 * len(delays), sleep=time.sleep)
    monkeypatch.setattr(measured, "time", clock)

    def watch(progress: Progress) -> None:
        if progress.stage == "measured":
            delays.append(progress)

    subject = experiment(optimization=Optimization(timeout_per_iteration=600.0))
    evaluator = MeasuredEvaluator(subject, engine("sim"), launcher("process"), render_shell, watch)
    measurement = evaluator.evaluate(Candidate("sim"), ListedLoads(evaluator.workload), tmp_path)
    assert failure(measurement).kind is FailureKind.TRIAL_TIMED_OUT
    assert "1 of 2 load points" in failure(measurement).message
    assert len(measurement.load_points) == 1


def test_the_next_start_is_expected_to_take_as_long_as_the_last(tmp_path: Path) -> None:
    progress_reports: list[Progress] = []
    subject = experiment()
    evaluator = MeasuredEvaluator(subject, engine("sim"), launcher("process"), render_shell, progress_reports.append)
    first = evaluator.evaluate(Candidate("sim"), ListedLoads(evaluator.workload), tmp_path / "1")
    evaluator.evaluate(Candidate("sim"), ListedLoads(evaluator.workload), tmp_path / "2")
    expected = [progress.expected_seconds for progress in progress_reports if progress.stage == "starting"]
    assert expected == [engine("sim").expected_start_seconds, first.timings["start"]]
