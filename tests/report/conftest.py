"""Runs made of request records, through the scoring that real runs go through."""

import pytest

from autotuner.core import Candidate, Failure, FailureKind, Measurement, Trial
from autotuner.scoring.rank import rank
from tests.factories import scored_experiment, scored_result


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
    def ranking(self):
        return rank(self.trials, self.experiment)

    @property
    def all(self):
        """What renderers take."""
        return self.ranking, self.trials, self.experiment


@pytest.fixture(scope="session")
def make_run():
    return Run
