"""Whole launches in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from autotuner.core import (
    Candidate,
    FailureKind,
    LoadPlanSummary,
    LoadPointResult,
    LoadStep,
    Measurement,
    Progress,
    RequestRecord,
    Value,
)
from autotuner.deploy.shell import render_shell
from autotuner.engines import LaunchContext, engine
from autotuner.evaluate.measured import MeasuredEvaluator
from autotuner.evaluate.simulated import SimulatedEvaluator
from autotuner.experiment import (
    Benchmark,
    Experiment,
    FaultOptions,
    Hardware,
    Model,
    Optimization,
    Runtime,
    SimulationOptions,
    SkewOptions,
)
from autotuner.launchers import launcher
from autotuner.load import records
from autotuner.search.launch import ListedLoads
from autotuner.simulate.settings import SettingsError, SimulationSettings, parse_settings


def experiment(**changed: Any) -> Experiment:
    options: dict[str, Any] = {
        "task_name": "t",
        "model": Model(id_or_path="llama-3.1-8b"),
        "base_runtime": "sim",
        "parameters": {},
        "benchmark": Benchmark(traffic_scenarios=("D(200,40)",), num_concurrency=(1, 8)),
    }
    return Experiment(**options | changed)


def simulate(folder: Path, subject: Experiment, **parameters: Value) -> Measurement:
    evaluator = SimulatedEvaluator(subject, engine(subject.base_runtime), render=render_shell)
    return evaluator.evaluate(Candidate(subject.base_runtime, parameters), ListedLoads(evaluator.workload), folder)


def test_a_launch_serves_every_load_point_and_is_called_simulated(tmp_path):
    progress_reports: list[Progress] = []
    evaluator = SimulatedEvaluator(experiment(), engine("sim"), progress_reports.append)
    measurement = evaluator.evaluate(
        Candidate("sim", {"tp-size": 2}), ListedLoads(evaluator.workload), tmp_path, 3, "confirmation"
    )
    assert {progress.purpose for progress in progress_reports} == {"confirmation"}
    assert measurement.failure is None
    assert {measurement.source, *(result.source for result in measurement.load_points)} == {"simulated"}
    assert [result.load_point.concurrency for result in measurement.load_points] == [1, 8]
    assert measurement.server["kv_tokens"] > 0
    points = [(stage, number) for number in (1, 2) for stage in ("warming-up", "measuring", "measured")]
    assert [(progress.stage, progress.position) for progress in progress_reports] == [
        ("starting", 0),
        ("ready", 0),
        *points,
        ("stopping", 0),
    ]
    assert {(progress.trial_number, progress.total) for progress in progress_reports} == {(3, 2)}


def test_its_folder_holds_the_same_files_as_a_measured_one(tmp_path):
    measurement = simulate(tmp_path, experiment())
    assert {path.name for path in tmp_path.iterdir()} == {"command.sh", "server.log", "records-1.npz", "records-2.npz"}
    assert "simulated" in (tmp_path / "server.log").read_text()
    saved = records.read(tmp_path / "records-2.npz")
    assert len(saved.records) >= measurement.load_points[1].metrics.requests


def test_its_times_are_virtual_and_add_up_on_its_clock(tmp_path):
    subject = experiment(runtime=Runtime(extra_args=("--load-seconds", "60")))
    evaluator = SimulatedEvaluator(subject, engine("sim"), keep_records=False)
    start_time = evaluator.clock()
    measurement = evaluator.evaluate(Candidate("sim"), ListedLoads(evaluator.workload), tmp_path)
    assert measurement.timings["start"] == 60.0
    assert 50.0 < measurement.timings["load"] < 52.0
    assert evaluator.clock() - start_time == pytest.approx(sum(measurement.timings.values()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.processes
@pytest.mark.parametrize(
    ("parameters", "kind"),
    [
        ({"mem-fraction-static": 0.1}, FailureKind.OUT_OF_MEMORY_AT_START),
        ({"tp-size": 3}, FailureKind.NOT_DIVISIBLE),
        ({"kv-cache-dtype": "fp3"}, FailureKind.BAD_FLAG),
    ],
)
def test_a_start_fails_as_it_does_on_the_simulated_server(tmp_path, parameters, kind):
    subject = experiment()
    virtual = simulate(tmp_path / "virtual", subject, **parameters)
    real = MeasuredEvaluator(subject, engine("sim"), launcher("process"), render_shell).evaluate(
        Candidate("sim", parameters), ListedLoads(subject.workload()), tmp_path / "real"
    )
    assert virtual.failure is not None
    assert virtual.failure == real.failure
    assert virtual.failure.kind == kind


CANDIDATES: tuple[dict[str, Value], ...] = (
    {},
    {"tp-size": 2, "pp-size": 2, "mem-fraction-static": 0.85, "max-running-requests": 64, "max-batched-tokens": 4096},
    {"max-model-len": 2048, "kv-block-size": 32, "kv-cache-dtype": "bf16", "quantization": "fp8"},
    {"prefix-caching": False, "enable-chunked-prefill": False, "cuda-graph": True, "schedule-policy": "lpm"},
    {"max_running_requests": 8, "load-seconds": 2.5, "fixed-step-ms": 3, "tp-size": None},
)


@pytest.mark.parametrize("parameters", CANDIDATES)
@pytest.mark.parametrize("extra_args", [(), ("--max-running-requests", "9", "--no-prefix-caching")])
@pytest.mark.parametrize(
    "options",
    [
        SimulationOptions(gpu="A100", seed=3),
        SimulationOptions(skew=SkewOptions(seed=2, sd=0.1), faults=FaultOptions(crash_after=0, malformed=0.5)),
    ],
)
def test_a_candidate_is_simulated_with_the_settings_of_its_command_line(parameters, extra_args, options):
    candidate, model = Candidate("sim", parameters), Model(id_or_path="llama-3.1-8b")
    context = LaunchContext(model, Runtime(extra_args=extra_args), simulate=options)
    _, _, _, *argv = engine("sim").server_spec(candidate, context).argv
    assert SimulationSettings.of(candidate, model.id_or_path, options, extra_args) == parse_settings(argv)


@pytest.mark.parametrize(
    "parameters", [{"no-such": 1}, {"tp-size": 0}, {"schedule-policy": "lifo"}, {"load-seconds": -1}]
)
def test_what_the_simulated_engine_does_not_take_is_refused_in_the_words_of_its_server(parameters):
    with pytest.raises(SettingsError, match=r"error: (unrecognized arguments|argument )"):
        SimulationSettings.of(Candidate("sim", parameters), "llama-3.1-8b", SimulationOptions())


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("crash_after", FailureKind.CRASHED_UNDER_LOAD), ("hang_after", FailureKind.HUNG_UNDER_LOAD)],
)
def test_an_engine_that_dies_under_load_keeps_the_load_points_before(tmp_path, fault, kind):
    measurement = simulate(tmp_path, experiment(simulate=SimulationOptions(faults=FaultOptions(**{fault: 100}))))
    assert measurement.failure is not None
    assert measurement.failure.kind == kind
    assert [result.load_point.concurrency for result in measurement.load_points] == [1]


def test_a_launch_that_takes_too_long_times_out(tmp_path):
    measurement = simulate(tmp_path, experiment(optimization=Optimization(timeout_per_iteration=20)))
    assert measurement.failure is not None
    assert measurement.failure.kind == FailureKind.TRIAL_TIMED_OUT
    assert len(measurement.load_points) == 1


@dataclass
class OneStepPlan:
    """A load plan of one step."""

    step: LoadStep | None
    results: list[LoadPointResult] = field(default_factory=list)
    max_load_points: int = 1
    outcome: LoadPlanSummary = field(default_factory=LoadPlanSummary)

    def ask(self) -> LoadStep | None:
        return self.step

    def tell(self, result: LoadPointResult) -> None:
        self.results.append(result)
        self.step = None


def test_a_stop_rule_may_end_a_load_point_early(tmp_path):
    def stop_rule(finished: Sequence[RequestRecord]) -> str | None:
        return "enough" if len(finished) >= 20 else None

    evaluator = SimulatedEvaluator(experiment(), engine("sim"))
    workload = evaluator.workload
    load_plan = OneStepPlan(LoadStep(workload.for_load_point(workload.load_points[1]), stop_rule))
    measurement = evaluator.evaluate(Candidate("sim"), load_plan, tmp_path)
    assert load_plan.results == list(measurement.load_points)
    assert measurement.timings["load"] < workload.duration


def test_another_engines_candidate_runs_on_its_hardware_with_its_constants(tmp_path):
    measurements = {}
    for runtime, gpu in (("vllm", "A100"), ("vllm", "H100"), ("sglang", "H100")):
        subject = experiment(base_runtime=runtime, hardware=Hardware(gpu_type=gpu))
        measurements[runtime, gpu] = simulate(tmp_path / runtime / gpu, subject, dtype="bfloat16")
    throughput = {
        key: measurement.load_points[0].metrics.output_throughput for key, measurement in measurements.items()
    }
    assert throughput["vllm", "A100"] < throughput["vllm", "H100"]
    assert throughput["vllm", "H100"] != throughput["sglang", "H100"]
    assert {measurement.source for measurement in measurements.values()} == {"simulated"}
    assert measurements["vllm", "H100"].server["not_simulated"] == ["dtype"]
    assert measurements["vllm", "H100"].timings["start"] == engine("vllm").expected_start_seconds


def test_a_skew_changes_the_results_reproducibly(tmp_path):
    def throughput(number: int, **skew: Any) -> float:
        subject = experiment(simulate=SimulationOptions(skew=SkewOptions(**skew)))
        return simulate(tmp_path / str(number), subject).load_points[1].metrics.output_throughput

    plain, skewed, repeated, other = (
        throughput(number, **skew)
        for number, skew in enumerate(({}, {"seed": 1, "sd": 0.25}, {"seed": 1, "sd": 0.25}, {"seed": 2, "sd": 0.25}))
    )
    assert skewed == repeated
    assert len({plain, skewed, other}) == 3
