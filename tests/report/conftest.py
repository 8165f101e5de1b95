"""Runs made of request records, through the scoring that real runs go through."""

import pytest

from autotuner.core import (
    Candidate,
    Failure,
    FailureKind,
    LoadPoint,
    LoadPointResult,
    Measurement,
    Observation,
    RequestRecord,
    Trial,
)
from autotuner.experiment import Experiment
from autotuner.scoring.metrics import summarize
from autotuner.scoring.rank import Ranking, rank
from autotuner.scoring.validity import check_validity


def record(sent, ttft, tpot):
    times = tuple(sent + ttft + tpot * i for i in range(100))
    return RequestRecord(0, sent, sent, times[-1], times, (1,) * 100, 100, 100, 100, 100, None, "length")


def result(concurrency, ttft, tpot, experiment, source="measured", scenario="D(100,100)"):
    """`concurrency` streams for 20 s, all requests equal."""
    took = ttft + 99 * tpot
    rounds = int(20 / took)
    records = [record(i * took, ttft, tpot) for i in range(rounds) for _ in range(concurrency)]
    point = LoadPoint(scenario, concurrency=concurrency)
    observation = Observation(point, tuple(records), (0.0, rounds * took), 0.001)
    metrics = summarize(observation, experiment.slo)
    return LoadPointResult(point, source, metrics, check_validity(observation, metrics, experiment.slo))


def experiment(
    objective="maximize_throughput", loads=(4, 16), slo=None, scenarios=("D(100,100)",), model="tiny", price=None
):
    return Experiment.model_validate(
        {
            "task_name": "chat_grid",
            "model": {"id_or_path": model},
            "base_runtime": "vllm",
            "hardware": {"price_per_gpu_hour": price},
            "parameters": {"tp-size": [1, 2]},
            "optimization": {"objective": objective},
            "benchmark": {"traffic_scenarios": scenarios, "num_concurrency": loads},
            "slo": slo or {},
        }
    )


class Run:
    """Two sound candidates and one that crashed under load: trial 2 has the higher throughput per GPU."""

    def __init__(self, objective="maximize_throughput", source="measured", count=None, **changes):
        self.experiment = experiment(objective, **changes)
        settings = [(1, 0.030, 0.010), (2, 0.020, 0.004), (2, 0.010, 0.002)]
        self.trials = [
            self._trial(number, *settings[(number - 1) % 3], source, spread=(number - 1) // 3)
            for number in range(1, (count or 3) + 1)
        ]

    def _trial(self, number, tp, ttft, tpot, source, spread):
        loads = self.experiment.benchmark.num_concurrency
        slower = 1 + 0.07 * spread
        results = [
            result(
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
    def ranking(self):
        return rank(self.trials, self.experiment)

    @property
    def all(self) -> tuple[Ranking, list[Trial], Experiment]:
        """What renderers take."""
        return self.ranking, self.trials, self.experiment


@pytest.fixture(scope="session")
def make_run():
    return Run
