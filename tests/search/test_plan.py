"""What a run is said to cost before it starts."""

from dataclasses import replace

import pytest

from autotuner.core import Candidate
from autotuner.experiment import Experiment
from autotuner.search.launch import Launch
from autotuner.search.plan import LAUNCH_OVERHEAD_SECONDS, POINT_OVERHEAD_SECONDS, Plan
from autotuner.search.space import Space

START = 60.0
LAUNCH = START + LAUNCH_OVERHEAD_SECONDS
POINT = 5 + 20 + POINT_OVERHEAD_SECONDS
LONGEST_POINT = 5 + 6 * 20 + POINT_OVERHEAD_SECONDS


def plan(objective="minimize_latency", *, candidates=3, baseline=True, scenarios=1, gpus=None, find=False, **chosen):
    experiment = Experiment.model_validate(
        {
            "task_name": "t",
            "model": {"id_or_path": "m"},
            "base_runtime": "vllm",
            "parameters": {"x": list(range(1, 4))},
            "optimization": {"objective": objective, "strategy": "grid_search", **chosen},
            "benchmark": {
                "traffic_scenarios": ["D(100,100)", "D(200,10)"][:scenarios],
                "num_concurrency": (1, 64) if find else (1, 4, 16),
                "find_capacity": find,
            },
        }
    )
    space = Space("vllm", experiment.parameters)
    launches = tuple(map(Launch, space.candidates[:candidates]))
    first = (Launch(Candidate("vllm"), "baseline"),) if baseline else ()
    return Plan(space, experiment, first + launches, START, gpus or (1,) * (candidates + baseline))


def test_a_plan_counts_the_baseline_the_search_and_the_confirmations():
    made = plan()
    assert made.purposes == {"baseline": 1, "search": 3, "confirmation": 4}
    assert (made.launch_count, made.confirmations) == (8, 4)
    assert made.usual_cost.seconds == pytest.approx(8 * (LAUNCH + 3 * POINT))


@pytest.mark.parametrize(
    ("changes", "confirmations"),
    [
        ({"confirm": 0}, 0),
        ({"confirm": 3}, 6),
        ({"baseline": False}, 2),
        ({"candidates": 0}, 0),
    ],
)
def test_the_winner_is_confirmed_and_the_baseline_beside_it(changes, confirmations):
    assert plan(**changes).confirmations == confirmations


@pytest.mark.parametrize(
    ("objective", "scenarios", "points"),
    [
        ("minimize_latency", 1, 3),
        ("minimize_ttft", 2, 6),
        ("maximize_throughput", 1, 1),
        ("minimize_cost", 2, 2),
    ],
)
def test_a_confirmation_is_driven_at_the_load_points_on_which_the_winner_stands(objective, scenarios, points):
    made = plan(objective, scenarios=scenarios)
    assert made.confirmation_load.points == points
    searching = 4 * (LAUNCH + 3 * scenarios * POINT)
    assert made.usual_cost.seconds == pytest.approx(searching + 4 * (LAUNCH + points * POINT))


def test_at_most_every_window_is_six_times_as_long():
    made = plan("maximize_throughput")
    assert made.max_cost.seconds == pytest.approx(4 * (LAUNCH + 3 * LONGEST_POINT) + 4 * (LAUNCH + LONGEST_POINT))


@pytest.mark.parametrize(("longest", "window"), [(None, 120), (45.0, 45), (20.0, 20), (5.0, 20)])
def test_a_window_lasts_at_most_as_long_as_the_workload_allows(longest, window):
    made = plan()
    benchmark = made.experiment.benchmark.model_copy(update={"max_duration": longest})
    made = replace(made, experiment=made.experiment.model_copy(update={"benchmark": benchmark}))
    assert (made.launch_load.max_window, made.confirmation_load.max_window) == (window, window)
    assert made.max_cost.seconds == pytest.approx(8 * (LAUNCH + 3 * (5 + window + POINT_OVERHEAD_SECONDS)))


def test_a_launch_takes_no_longer_than_it_may_and_a_run_no_longer_than_its_budget():
    # a launch is given up at 100 s, but not within a load point
    assert plan(timeout_per_iteration=100.0).max_cost.seconds == pytest.approx(8 * (100.0 + LONGEST_POINT))
    assert plan(max_seconds=500.0).max_cost.seconds == plan(max_seconds=500.0).usual_cost.seconds == 500.0
    assert plan(max_gpu_hours=0.01).usual_cost.gpu_hours == 0.01


def test_gpu_hours_hold_the_confirmations_of_the_baseline_and_of_a_winner_that_may_be_the_largest():
    made = plan(gpus=(1, 2, 4, 8))
    launch = LAUNCH + 3 * POINT
    assert made.usual_cost.gpu_hours == pytest.approx((15 + 2 * 1 + 2 * 8) * launch / 3600)
    assert made.max_cost.gpu_hours > made.usual_cost.gpu_hours


def test_where_no_gpu_is_taken_there_are_no_gpu_hours():
    made = replace(plan(), gpus=())
    assert (made.usual_cost.gpu_hours, made.max_cost.gpu_hours) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "early"),
    [({}, False), ({"strategy": "racing"}, True), ({"patience": 2}, True), ({"strategy": "random"}, False)],
)
def test_a_search_that_may_end_early_says_so(changes, early):
    assert plan(**changes).may_end_early is early


def test_a_capacity_takes_a_few_load_points_and_many_at_most():
    made = plan("maximize_throughput", find=True)
    # 1, 2, ... 64, and five to close in
    assert (made.launch_load.points, made.launch_load.max_points) == (3, 12)
    assert made.confirmation_load.points == 1
    # a window that is as long as the requests need, and as long again three times until the answer is clear
    assert (made.launch_load.max_window, made.confirmation_load.max_window) == (4 * 6 * 20, 6 * 20)
    assert made.max_cost.seconds > 6 * made.usual_cost.seconds
