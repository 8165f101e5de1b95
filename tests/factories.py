"""Builders of what several rooms test with: experiments, request records, metrics, results, plans."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autotuner.core import (
    Candidate,
    Check,
    Distribution,
    Failure,
    FailureKind,
    LoadPoint,
    LoadPointResult,
    Measurement,
    Metrics,
    Observation,
    RequestRecord,
    Share,
    Source,
    Trial,
)
from autotuner.experiment import Deployment, Experiment
from autotuner.expression import parse
from autotuner.report.bench.result import BenchResult
from autotuner.report.run_view import RunView
from autotuner.rules import Rules
from autotuner.scoring.intervals import wilson_share
from autotuner.scoring.metrics import summarize
from autotuner.scoring.rank import rank
from autotuner.scoring.validity import check_validity
from autotuner.search.launch import Launch
from autotuner.search.plan import Plan
from autotuner.search.problem import Problem
from autotuner.search.space import Space


def experiment(**sections: Any) -> Experiment:
    """A small experiment; `sections` replace whole sections of it."""
    config: dict[str, Any] = {
        "task_name": "t",
        "model": {"id_or_path": "m"},
        "base_runtime": "sim",
        "parameters": {},
        "benchmark": {"traffic_scenarios": ["D(100,100)"], "num_concurrency": [1]},
    }
    return Experiment.model_validate(config | sections)


def scored_experiment(
    objective: str = "maximize_throughput",
    loads: Sequence[int] = (4, 16),
    slo: Mapping[str, Any] | None = None,
    price: float | None = None,
    scenarios: Sequence[str] = ("D(100,100)",),
    model: str = "tiny",
    **benchmark: Any,
) -> Experiment:
    """An experiment on two values of tp-size, with what its results are scored by."""
    return experiment(
        task_name="chat_grid",
        model={"id_or_path": model},
        base_runtime="vllm",
        hardware={"price_per_gpu_hour": price},
        parameters={"tp-size": [1, 2]},
        optimization={"objective": objective},
        benchmark={"traffic_scenarios": scenarios, "num_concurrency": loads, **benchmark},
        slo=slo or {},
    )


def problem(space: Space, limit: int = 10, seed: int = 0, **sections: Any) -> Problem:
    """A problem on `space` with at most `limit` launches."""
    optimization = {"max_iterations": limit, "seed": seed} | sections.pop("optimization", {})
    return Problem(space, experiment(optimization=optimization, **sections))


def rules(
    only_when: Mapping[str, str] | None = None, constraints: Mapping[str, str] | None = None, gpus: int | None = None
) -> Rules:
    """Rules from their texts."""
    conditions = {name: parse(text) for name, text in (only_when or {}).items()}
    constraint_rules = {name: parse(text) for name, text in (constraints or {}).items()}
    return Rules({"runtime": "sim", "deployment": "process", "gpus": gpus}, conditions, constraint_rules)


def plan(
    experiment: Experiment, searched: int | None = None, start_seconds: float = 90.0, virtual: bool = False
) -> Plan:
    """A baseline and then `searched` candidates, or all, each on one GPU."""
    space = Space(experiment.base_runtime, experiment.parameters)
    searches = tuple(Launch(candidate) for candidate in space.candidates[:searched])
    baseline = (Launch(Candidate(experiment.base_runtime), "baseline"),)
    return Plan(space, experiment, baseline + searches, start_seconds, (1,) * (len(searches) + 1), virtual)


def record(sent: float = 0.0, ttft: float = 0.1, gap: float = 0.01, tokens: int = 11, **changes: Any) -> RequestRecord:
    """A request sent at `sent`: first token after `ttft`, then one token every `gap`."""
    times = tuple(sent + ttft + gap * i for i in range(tokens))
    fields: dict[str, Any] = {
        "index": 0,
        "scheduled": sent,
        "sent": sent,
        "finished": times[-1] if times else sent,
        "chunk_times": times,
        "chunk_tokens": (1,) * tokens,
        "requested_prompt": 100,
        "requested_output": tokens,
        "prompt_tokens": 100,
        "output_tokens": tokens,
        "finish_reason": "length",
    }
    return RequestRecord(**(fields | changes))


def failed(sent: float = 0.0, error: str = "timeout", seconds: float = 1.0, **changes: Any) -> RequestRecord:
    """A request that ended in an error and brought nothing."""
    empty: dict[str, Any] = {"chunk_times": (), "chunk_tokens": (), "output_tokens": None, "prompt_tokens": None}
    return record(sent, error=error, finished=sent + seconds, **(empty | changes))


def constant(value: float, n: int = 100, **changes: Any) -> Distribution:
    """`n` equal samples."""
    names = ("mean", "min", "p25", "p50", "p75", "p90", "p95", "p99", "max")
    intervals = dict.fromkeys(("mean", "p50", "p90", "p95", "p99"), (value, value))
    return Distribution(n=n, sd=0.0, **(dict.fromkeys(names, value) | {"intervals": intervals} | changes))


def metrics(
    e2e: float = 1.0,
    ttft: float = 0.1,
    tpot: float = 0.01,
    throughput: float = 1000.0,
    good: int | None = None,
    n: int = 100,
    **changes: Any,
) -> Metrics:
    """A load point in which every request was the same, and `good` of them met the targets, all unless told."""
    good = n if good is None else good
    fields: dict[str, Any] = {
        "requests": n,
        "ttft": constant(ttft, n),
        "ttfo": constant(ttft, n),
        "tpot": constant(tpot, n),
        "itl": constant(tpot, n * 10),
        "chunk_gap": constant(tpot, n * 10),
        "e2e": constant(e2e, n),
        "interactivity": 1 / tpot,
        "output_throughput": throughput / 2,
        "throughput": throughput,
        "request_throughput": throughput / 200,
        "goodput": throughput / 200 * good / n,
        "token_goodput": throughput / 2 * good / n,
        "attainment": wilson_share(good, n),
        "errors": {},
    }
    return Metrics(**(fields | changes))


def scored_result(
    concurrency: int,
    ttft: float,
    tpot: float,
    experiment: Experiment,
    source: Source = "measured",
    scenario: str = "D(100,100)",
) -> LoadPointResult:
    """`concurrency` streams for 20 s, all requests equal, through the scoring that real runs go through."""
    took = ttft + 99 * tpot
    rounds = int(20 / took)
    records = [record(i * took, ttft, tpot, tokens=100) for i in range(rounds) for _ in range(concurrency)]
    point = LoadPoint(scenario, concurrency=concurrency)
    observation = Observation(point, tuple(records), (0.0, rounds * took), 0.001)
    metrics = summarize(observation, experiment.slo)
    return LoadPointResult(point, source, metrics, check_validity(observation, metrics, experiment.slo))


def load_point_result(
    point: LoadPoint,
    throughput: float = 100.0,
    e2e: float = 1.0,
    ttft: float = 0.1,
    attainment: Share | None = None,
    littles_law: bool = True,
) -> LoadPointResult:
    """An unjudged result of scenario D(100,100); `throughput` counts prompt and output tokens."""
    figures = metrics(
        e2e,
        ttft,
        (e2e - ttft) / 99,
        throughput,
        n=attainment.n if attainment else 100,
        interactivity=99 / max(e2e - ttft, 1e-9),
        goodput=throughput / 200 * (attainment.value if attainment else 1.0),
        token_goodput=throughput / 2,
        attainment=attainment,
        ttft_from_schedule=constant(ttft),
        e2e_from_schedule=constant(e2e),
    )
    checks = (Check("littles-law", 1.0, "within 10% of 1", littles_law),)
    return LoadPointResult(point, "simulated", figures, checks)


def load_test(
    experiment: Experiment,
    results: Sequence[LoadPointResult],
    source: Source = "measured",
    failure: Failure | None = None,
    path: Path | None = None,
    **server: Any,
) -> BenchResult:
    """A load test of a server at http://h:1 with these results, their verdicts as they are."""
    deployment = Deployment(mode="external", url="http://h:1")
    experiment = experiment.model_copy(update={"deployment": deployment})
    measurement = Measurement(source, tuple(results), failure, server=server)
    trial = Trial(1, Candidate("openai"), measurement, 0.0, 1.0)
    return BenchResult(RunView(experiment, (trial,), rank((trial,), experiment)), path)


class Run:
    """Two sound candidates and one that crashed under load: trial 2 has the higher throughput per GPU."""

    def __init__(self, objective="maximize_throughput", source="measured", count=None, **changes):
        self.experiment = scored_experiment(objective, **changes)
        settings = [(1, 0.030, 0.010), (2, 0.020, 0.004), (2, 0.010, 0.002)]
        self.trials = [
            self._trial(number, *settings[(number - 1) % 3], source, spread=(number - 1) // 3)
            for number in range(1, (count or 3) + 1)
        ]

    def _trial(self, number, tp, ttft, tpot, source, spread):
        loads = self.experiment.benchmark.num_concurrency
        slower = 1 + 0.07 * spread
        results = [
            scored_result(
                load, slower * ttft * (1 + load / 10), slower * tpot * (1 + load / 40), self.experiment, source, name
            )
            for name in self.experiment.benchmark.traffic_scenarios
            for load in loads
        ]
        failure = None
        if number % 3 == 0:
            results = results[:1]
            failure = Failure(FailureKind.CRASHED_UNDER_LOAD, "Killed | by\nthe kernel", "Free some memory.")
        parameters = {"tp-size": tp, "mem-fraction-static": 0.9, "enable-chunked-prefill": tp == 1}
        if number % 3 == 0:
            parameters["kv-cache-dtype"] = "fp8"
        return Trial(
            number, Candidate("vllm", parameters), Measurement(source, tuple(results), failure), 0.0, float(number)
        )

    @property
    def view(self) -> RunView:
        return RunView.of(self.trials, self.experiment)
