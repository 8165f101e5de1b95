"""Run folders to make pages of: results of the scoring that real runs go through, with their records and logs."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from autotuner.core import (
    Candidate,
    Failure,
    FailureKind,
    LoadPoint,
    LoadPointResult,
    Measurement,
    Observation,
    Purpose,
    RequestRecord,
    ServerSpec,
    Trial,
    Value,
)
from autotuner.experiment import Experiment, Slo
from autotuner.load import records
from autotuner.runs.store import RunStore
from autotuner.runs.trial_lines import trial_to_json
from autotuner.scoring.judge import judge
from autotuner.scoring.metrics import summarize
from autotuner.scoring.validity import check_validity
from tests.factories import record

CONFIG = {
    "task_name": "page",
    "model": {"id_or_path": "tiny-model"},
    "base_runtime": "vllm",
    "parameters": {"tp-size": [1, 2], "max-num-seqs": [64, 128, 256]},
    "optimization": {"objective": "maximize_throughput"},
    "benchmark": {"traffic_scenarios": ["D(100,100)"], "num_concurrency": [4, 16]},
    "slo": {"ttft": 0.06, "tpot": 0.0075},
}


def make_run_folder(
    root: Path, *, candidates: int = 4, finished: bool = True, text: str = "", config: Mapping[str, Any] | None = None
) -> RunStore:
    """A run of `candidates` launches besides the defaults, the last of which failed, and two confirmations.

    `text` stands wherever a run records texts of others: model, logs, errors, failure, parameter.
    """
    settings: dict[str, Any] = CONFIG | dict(config or {})
    if text:
        settings |= {"model": {"id_or_path": text.encode("utf-8", "replace").decode()}}
    store = RunStore.create(root, settings, {"layers": ["test"], "values": {"model.id_or_path": "test"}})
    trials = run_trials(store.experiment, candidates, text)
    for trial in trials:
        write_trial_folder(store, trial, text)
    lines = (json.dumps({"format": 1, **trial_to_json(trial)}) for trial in trials)
    (store.path / "trials.jsonl").write_text("".join(f"{line}\n" for line in lines))
    store.save_refused(
        [(Candidate("vllm", {"tp-size": 4}), f"needs 4 GPUs {text}".encode("utf-8", "replace").decode())]
    )
    if finished:
        store.save_search("every candidate was tried", [], candidates)
    return store


def run_trials(experiment: Experiment, candidates: int, text: str = "") -> list[Trial]:
    """The defaults, the candidates, and a second launch of the best candidate and of the defaults."""
    trials = [_trial(1, Candidate("vllm", {}), experiment, "baseline")]
    for index in range(candidates):
        parameters: dict[str, Value] = {"tp-size": 1 + index % 2, "max-num-seqs": 64 + index // 2}
        if text and index == 1:
            parameters["note"] = text.encode("utf-8", "replace").decode()
        trials.append(_trial(index + 2, Candidate("vllm", parameters), experiment, "search"))
    if candidates > 2:
        failure = Failure(
            FailureKind.CRASHED_UNDER_LOAD,
            f"Killed by the kernel {text}".encode("utf-8", "replace").decode(),
            "Free some memory.",
        )
        last = trials[-1].measurement
        trials[-1] = replace(trials[-1], measurement=replace(last, load_points=last.load_points[:1], failure=failure))
    for source in trials[1::-1]:
        trials.append(replace(source, number=len(trials) + 1, purpose="confirmation"))
    return trials


def _speed(candidate: Candidate) -> float:
    """How fast a candidate is, the engine's own defaults being 1: the first one is best."""
    if not candidate.parameters:
        return 1.0
    index = 2 * (int(str(candidate.parameters["max-num-seqs"])) - 64) + int(str(candidate.parameters["tp-size"])) - 1
    return 0.8 + 0.45 / (1 + index / 4)


def _trial(number: int, candidate: Candidate, experiment: Experiment, purpose: Purpose) -> Trial:
    load_points = experiment.workload().load_points
    slo = experiment.slo.model_dump_json()
    results = tuple(_result(point, _speed(candidate), slo) for point in load_points)
    spec = ServerSpec(
        None,
        ("vllm", "serve", experiment.model.id_or_path, *map(str, candidate.parameters)),
        {},
        (),
        8000,
        "/health",
        "m",
    )
    measurement = Measurement(
        "measured", results, timings={"start": 10.0, "load": 40.0}, server={"version": "0.11"}, spec=spec
    )
    trial = Trial(number, candidate, measurement, 1.7e9 + 60 * number, 1.7e9 + 60 * number + 50, purpose)
    return judge(trial, experiment)


@cache
def observation(point: LoadPoint, speed: float) -> Observation:
    """Streams of requests whose latencies spread around those of `speed` and load."""
    streams = point.concurrency or 4
    made: list[RequestRecord] = []
    for stream in range(streams):
        sent = 0.0
        for index in range(12):
            spread = 0.8 + 0.4 * ((7 * stream + 3 * index) % 11) / 10
            ttft, gap = 0.02 * spread * (1 + streams / 20) / speed, 0.005 * spread * (1 + streams / 40) / speed
            made.append(record(sent, ttft, gap, tokens=100, index=len(made)))
            sent = made[-1].finished
    end = max(each.finished for each in made)
    return Observation(point, tuple(made), (0.0, end), 0.001)


@cache
def _result(point: LoadPoint, speed: float, slo_json: str) -> LoadPointResult:
    observed, slo = observation(point, speed), Slo.model_validate_json(slo_json)
    metrics = summarize(observed, slo)
    return LoadPointResult(point, "measured", metrics, check_validity(observed, metrics, slo))


@cache
def _records_file(point: LoadPoint, speed: float) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.npz"
        records.save(path, observation(point, speed))
        return path.read_bytes()


def write_trial(store: RunStore, trial: Trial, text: str = "") -> None:
    """Append a trial and write its folder."""
    write_trial_folder(store, trial, text)
    store.append(trial)


def write_trial_folder(store: RunStore, trial: Trial, text: str = "") -> None:
    """Write the folder of a trial: command, log, records."""
    folder = store.path / "trials" / f"{trial.number:03d}"
    folder.mkdir(parents=True)
    (folder / "command.sh").write_text(f"#!/bin/sh\nvllm serve {text}\n", errors="replace")
    log = [f"INFO step {line} {text}" for line in range(60)]
    (folder / "server.log").write_text("\n".join(log) + "\n", errors="replace")
    for position, result in enumerate(trial.results, start=1):
        (folder / f"records-{position}.npz").write_bytes(_records_file(result.load_point, _speed(trial.candidate)))
