"""The estimated cost of a run before it starts."""

from dataclasses import replace

import pytest

from autotuner.core import Candidate
from autotuner.experiment import Experiment
from autotuner.search.launch import Launch
from autotuner.search.plan import LAUNCH_OVERHEAD_SECONDS, POINT_OVERHEAD_SECONDS, Plan
from autotuner.search.space import Space

START_SECONDS = 60.0
LAUNCH_SECONDS = START_SECONDS + LAUNCH_OVERHEAD_SECONDS
POINT_SECONDS = 5 + 20 + POINT_OVERHEAD_SECONDS
MAX_POINT_SECONDS = 5 + 6 * 20 + POINT_OVERHEAD_SECONDS


def plan(
    objective="minimize_latency",
    *,
    candidates=3,
    baseline=True,
    scenarios=1,
    gpus=None,
    find_capacity=False,
    **optimization,
):
    experiment = Experiment.model_validate(
        {
            "task_name": "t",
            "model": {"id_or_path": "m"},
            "base_runtime": "vllm",
            "parameters": {"x": list(range(1, 4))},
            "optimization": {"objective": objective, "strategy": "grid_search", **optimization},
            "benchmark": {
                "traffic_scenarios": ["D(100,100)", "D(200,10)"][:scenarios],
                "num_concurrency": (1, 64) if find_capacity else (1, 4, 16),
                "find_capacity": find_capacity,
            },
        }
    )
    space = Space("vllm", experiment.parameters)
    launches = tuple(map(Launch, space.candidates[:candidates]))
    baseline_launch = (Launch(Candidate("vllm"), "baseline"),) if baseline else ()
    return Plan(space, experiment, baseline_launch + launches, START_SECONDS, gpus or (1,) * (candidates + baseline))


def test_a_plan_counts_the_baseline_the_search_and_the_confirmations():
    run_plan = plan()
    assert run_plan.purposes == {"baseline": 1, "search": 3, "confirmation": 4}
    assert (run_plan.launch_count, run_plan.confirmations) == (8, 4)
    assert run_plan.usual_cost.seconds == pytest.approx(8 * (LAUNCH_SECONDS + 3 * POINT_SECONDS))


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
def test_a_confirmation_covers_the_load_points_that_the_winner_is_ranked_by(objective, scenarios, points):
    run_plan = plan(objective, scenarios=scenarios)
    assert run_plan.confirmation_load.points == points
    search_seconds = 4 * (LAUNCH_SECONDS + 3 * scenarios * POINT_SECONDS)
    assert run_plan.usual_cost.seconds == pytest.approx(search_seconds + 4 * (LAUNCH_SECONDS + points * POINT_SECONDS))


def test_at_most_every_window_is_six_times_as_long():
    run_plan = plan("maximize_throughput")
    assert run_plan.max_cost.seconds == pytest.approx(
        4 * (LAUNCH_SECONDS + 3 * MAX_POINT_SECONDS) + 4 * (LAUNCH_SECONDS + MAX_POINT_SECONDS)
    )


@pytest.mark.parametrize(("max_duration", "window"), [(None, 120), (45.0, 45), (20.0, 20), (5.0, 20)])
def test_a_window_lasts_at_most_as_long_as_the_workload_allows(max_duration, window):
    run_plan = plan()
    benchmark = run_plan.experiment.benchmark.model_copy(update={"max_duration": max_duration})
    run_plan = replace(run_plan, experiment=run_plan.experiment.model_copy(update={"benchmark": benchmark}))
    assert (run_plan.launch_load.max_window, run_plan.confirmation_load.max_window) == (window, window)
    assert run_plan.max_cost.seconds == pytest.approx(8 * (LAUNCH_SECONDS + 3 * (5 + window + POINT_OVERHEAD_SECONDS)))


def test_the_cost_respects_the_timeout_of_a_launch_and_the_budgets_of_the_run():
    # a launch times out at 100 s, but not within a load point
    assert plan(timeout_per_iteration=100.0).max_cost.seconds == pytest.approx(8 * (100.0 + MAX_POINT_SECONDS))
    assert plan(max_seconds=500.0).max_cost.seconds == plan(max_seconds=500.0).usual_cost.seconds == 500.0
    assert plan(max_gpu_hours=0.01).usual_cost.gpu_hours == 0.01


def test_gpu_hours_hold_the_confirmations_of_the_baseline_and_of_a_winner_that_may_be_the_largest():
    run_plan = plan(gpus=(1, 2, 4, 8))
    launch_seconds = LAUNCH_SECONDS + 3 * POINT_SECONDS
    assert run_plan.usual_cost.gpu_hours == pytest.approx((15 + 2 * 1 + 2 * 8) * launch_seconds / 3600)
    assert run_plan.max_cost.gpu_hours > run_plan.usual_cost.gpu_hours


def test_without_gpus_there_are_no_gpu_hours():
    run_plan = replace(plan(), gpus=())
    assert (run_plan.usual_cost.gpu_hours, run_plan.max_cost.gpu_hours) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "early"),
    [({}, False), ({"strategy": "racing"}, True), ({"patience": 2}, True), ({"strategy": "random"}, False)],
)
def test_a_search_that_may_end_early_says_so(changes, early):
    assert plan(**changes).may_end_early is early


def test_a_capacity_search_usually_takes_a_few_load_points_and_at_most_many():
    run_plan = plan("maximize_throughput", find_capacity=True)
    # doubling from 1 to 64, and five bisections
    assert (run_plan.launch_load.points, run_plan.launch_load.max_points) == (3, 12)
    assert run_plan.confirmation_load.points == 1
    # a window six times as long, for slow requests, and three more of them while the verdict is open
    assert (run_plan.launch_load.max_window, run_plan.confirmation_load.max_window) == (4 * 6 * 20, 6 * 20)
    assert run_plan.max_cost.seconds > 6 * run_plan.usual_cost.seconds
