from dataclasses import replace
from typing import Any

import pytest

from autotuner.compare.comparison import Comparison
from autotuner.compare.fresh_pairs import compare_with_fresh_pairs, launch_config, pair_points
from autotuner.compare.gate import GateState
from autotuner.core import LoadPoint
from autotuner.errors import ConfigError
from autotuner.experiment import Experiment
from tests.compare.builders import POINT, candidate, config, run

SIMULATED: dict[str, Any] = {
    "model": {"id_or_path": "llama-3.1-8b"},
    "base_runtime": "vllm",
    "hardware": {"gpu_type": "H100", "total_gpus": 1},
    "optimization": {"objective": "maximize_throughput", "evaluator": "simulated"},
    "benchmark": {"traffic_scenarios": [POINT.scenario], "num_concurrency": [2, 4], "duration": 1, "warmup": 0},
}


def winner_with(**parameters: Any):
    return run(
        replace(candidate([1000.0, 1001.0]), runtime="vllm", parameters=parameters),
        source="simulated",
        config=config(**SIMULATED),
    )


def test_a_pair_launches_the_winner_alone_at_the_load_at_which_it_won():
    launch = launch_config(winner_with(**{"tp-size": 1}), 1000, (POINT,))
    experiment = Experiment.model_validate(launch)
    assert experiment.parameters == {"tp-size": (1,)}
    assert experiment.workload().load_points == (POINT,)
    assert (experiment.benchmark.seed, experiment.optimization.confirm, experiment.optimization.baseline) == (
        1000,
        0,
        False,
    )


def test_a_rate_stays_a_rate():
    point = LoadPoint(POINT.scenario, rate=2.0)
    benchmark = {"traffic_scenarios": [POINT.scenario], "request_rates": [2.0, 4.0]}
    open_loop = replace(winner_with(), config=config(benchmark=benchmark), winner_points=(point,))
    assert Experiment.model_validate(launch_config(open_loop, 0, (point,))).workload().load_points == (point,)


HIGHER = LoadPoint(POINT.scenario, concurrency=16)


@pytest.mark.parametrize(
    ("objective", "new_points", "points"),
    [
        ("maximize_throughput", (HIGHER,), {"baseline": (POINT,), "candidate": (POINT, HIGHER)}),
        ("maximize_throughput", (POINT,), {"baseline": (POINT,), "candidate": (POINT,)}),
        ("minimize_latency", (POINT, HIGHER), {"baseline": (POINT,), "candidate": (POINT,)}),
    ],
)
def test_the_candidate_measures_the_load_of_the_baseline_too(objective, new_points, points):
    asked = {"config": config(optimization={"objective": objective})}
    baseline, new = winner_with(), replace(winner_with(), winner_points=new_points)
    assert pair_points(Comparison(replace(baseline, **asked), replace(new, **asked))) == points


def test_a_run_without_winner_cannot_be_launched_again():
    with pytest.raises(ConfigError, match="has no winner"):
        launch_config(run(candidate([1.0]), winner=None), 0, ())


def test_pairs_decide_what_recorded_launches_could_not(tmp_path):
    unchanged = Comparison(winner_with(), winner_with())
    comparison, decision = compare_with_fresh_pairs(unchanged, tmp_path, 3)
    assert (len(comparison.pairs), decision.state) == (2, GateState.PASSES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["001", "002"]


def test_a_crippled_flag_is_worse_by_three_pairs(tmp_path):
    other_seed = {**winner_with().config["benchmark"], "seed": 77}
    new = winner_with(**{"max-running-requests": 1})
    crippled = Comparison(winner_with(), replace(new, config={**new.config, "benchmark": other_seed}))
    comparison, decision = compare_with_fresh_pairs(crippled, tmp_path, 5)
    assert (len(comparison.pairs), decision.state) == (3, GateState.WORSE)
    seeds = [[side.experiment.benchmark.seed for side in pair] for pair in comparison.pairs]
    assert seeds == [[1000, 1000], [2000, 2000], [3000, 3000]]
