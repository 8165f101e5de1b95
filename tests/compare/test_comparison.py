from dataclasses import replace
from typing import Any

import pytest

from autotuner.compare.changes import Change
from autotuner.compare.compared_run import ComparedRun, LaunchFigures
from autotuner.compare.comparison import Comparison
from autotuner.compare.differences import incomparable
from autotuner.compare.headline import headline
from autotuner.core import LoadPoint
from tests.compare.builders import POINT, candidate, config, run
from tests.factories import Run

STEADY = [1000.0, 1001.0, 999.0]
SLOWER = [900.0, 901.0, 899.0]


def test_a_slower_winner_is_worse_with_its_size_and_launches():
    comparison = Comparison(run(candidate(STEADY), name="before"), run(candidate(SLOWER), name="after"))
    objective = comparison.gated[0]
    assert objective.change is Change.WORSE
    assert objective.value_ratio == pytest.approx(0.9)
    assert headline(comparison).startswith("after is worse: total throughput per GPU of the winner -10.0% (-10.")
    assert headline(comparison).endswith("3 and 3 launches.")


def test_a_lower_latency_is_better_and_its_value_goes_down():
    latency: dict[str, Any] = {"config": config(optimization={"objective": "minimize_latency"})}
    # utilities of a latency are reciprocals
    before = run(candidate([0.5, 0.5, 0.501]), winner_value=2.0, **latency)
    comparison = Comparison(before, run(candidate([1.0, 1.0, 1.001]), winner_value=1.0, **latency))
    objective = comparison.gated[0]
    assert (objective.change, objective.baseline, objective.new) == (Change.BETTER, 2.0, 1.0)
    assert objective.value_ratio == pytest.approx(0.5, rel=1e-2)


def test_only_confirmations_of_a_winner_count_where_it_has_some():
    lucky = candidate(STEADY)
    lucky = replace(lucky, launches=(replace(candidate([2000.0]).launches[0], is_confirmation=False), *lucky.launches))
    comparison = Comparison(run(lucky), run(candidate(STEADY)))
    assert comparison.gated[0].change is Change.SAME


def test_without_a_winner_the_new_run_is_worse():
    comparison = Comparison(run(candidate(STEADY)), run(candidate(STEADY), winner=None))
    assert comparison.gated[0].change is Change.WORSE
    assert "has no winner" in headline(comparison)


def test_figures_of_shared_candidates_are_compared_at_shared_loads():
    figures = [{"ttft": 0.1, "output_throughput": 500.0}, {"ttft": 0.1001, "output_throughput": 501.0}]
    slower = [{"ttft": 0.2, "output_throughput": 500.0}, {"ttft": 0.2001, "output_throughput": 501.0}]
    before, after = candidate([1000, 1001], figures=figures), candidate([1000, 1001], figures=slower)
    (change,) = Comparison(run(before), run(after, candidate([5.0], key="b"))).candidates
    by_name = {each.figure.name: each for each in change.figures}
    assert by_name["ttft"].baseline == pytest.approx(100.05)
    assert by_name["ttft"].new == pytest.approx(200.05)
    assert (by_name["ttft"].change, by_name["output_throughput"].change) == (Change.WORSE, Change.SAME)


def test_failures_that_appeared_and_candidates_of_one_side_are_listed():
    from autotuner.compare.tables import failure_lines

    failing = candidate([], key="b", failure="bad-flag: unknown flag")
    comparison = Comparison(
        run(candidate(STEADY), candidate([7.0], key="b"), candidate([7.0], key="c"), name="before"),
        run(candidate(STEADY), failing, name="after"),
    )
    assert failure_lines(comparison) == [
        "candidate b fails now: bad-flag: unknown flag",
        "only in before: sim tp-size=1",
    ]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("model", {"model": {"id_or_path": "other"}}),
        ("scenario", {"benchmark": {"traffic_scenarios": ["D(1,1)"], "num_concurrency": [4]}}),
        ("slo", {"slo": {"ttft": 1.0}}),
        ("gpu", {"hardware": {"total_gpus": 8, "gpu_type": "H100"}}),
        ("objective", {"optimization": {"objective": "minimize_ttft"}}),
        ("load", {"benchmark": {"traffic_scenarios": [POINT.scenario], "request_rates": [4]}}),
    ],
)
def test_runs_of_another_question_cannot_be_compared(name, changes):
    other = run(candidate(STEADY), config=config(**changes))
    assert [each.name for each in incomparable(run(candidate(STEADY)), other)] == [name]


@pytest.mark.parametrize(
    ("objective", "prices", "differ"),
    [
        ("minimize_cost", (None, 2.5), True),
        ("minimize_cost", (2.5, 5.0), True),
        ("minimize_cost", (2.5, 2.5), False),
        ("maximize_throughput", (None, 2.5), False),
    ],
)
def test_a_price_matters_where_the_objective_is_a_cost(objective, prices, differ):
    sides = [
        run(
            candidate(STEADY),
            config=config(optimization={"objective": objective}, hardware={"price_per_gpu_hour": price}),
        )
        for price in prices
    ]
    assert [each.name for each in incomparable(*sides)] == (["price"] if differ else [])


HIGHER = LoadPoint(POINT.scenario, concurrency=16)


def latency_run(utilities: dict[LoadPoint, float], **fields: Any) -> ComparedRun:
    """A run ranked by latency over all these points, with two launches that are alike."""
    launches = tuple(LaunchFigures(number, True, {}, utilities) for number in (1, 2))
    points = {"winner_points": tuple(utilities), "config": config(optimization={"objective": "minimize_latency"})}
    return run(replace(candidate([1.0]), launches=launches), winner_value=9.0, **(points | fields))


def test_an_objective_at_equal_load_is_read_over_the_common_points():
    before, after = latency_run({POINT: 2.0}), latency_run({POINT: 2.0, HIGHER: 0.5})
    assert incomparable(before, after) == []
    for comparison in (Comparison(before, after), Comparison(after, before)):
        (objective,) = comparison.gated
        assert (objective.change, objective.ratio and objective.ratio.value) == (Change.SAME, 1.0)
        assert [objective.baseline, objective.new] == pytest.approx([0.5, 0.5])


def test_without_a_common_point_an_objective_at_equal_load_cannot_be_compared():
    (difference,) = incomparable(latency_run({POINT: 2.0}), latency_run({HIGHER: 0.5}))
    assert str(difference) == f"load: {POINT} -> {HIGHER}"


def test_an_objective_at_the_best_load_compares_winners_at_different_loads():
    other = run(candidate(STEADY), winner_points=(HIGHER,))
    assert incomparable(run(candidate(STEADY)), other) == []


def test_simulated_and_measured_runs_cannot_be_compared():
    differences = incomparable(run(candidate(STEADY)), run(candidate(STEADY), source="simulated"))
    assert str(differences[0]) == "source: measured -> simulated"


def test_what_was_changed_names_environment_settings_and_the_winners_parameters():
    after = run(
        candidate(STEADY, parameters={"tp-size": 2}),
        environment={"driver": "580"},
        config=config(runtime={"extra_args": ["--enforce-eager"]}),
    )
    changes = [str(each) for each in Comparison(run(candidate(STEADY)), after).changed]
    assert changes == [
        "driver: 570 -> 580",
        "runtime.extra_args: (none) -> --enforce-eager",
        "winner's tp-size: 1 -> 2",
    ]


def test_a_default_that_is_written_out_is_no_change():
    written = run(candidate(STEADY), config=config(deployment={"mode": "process"}))
    assert Comparison(run(candidate(STEADY)), written).changed == []


def test_a_run_is_read_with_figures_of_every_launch_that_did_not_fail():
    recorded = Run()
    compared = ComparedRun.from_view("r", recorded.view, recorded.experiment.model_dump(mode="json"))
    assert [len(each.launches) for each in compared.candidates.values()] == [1, 1, 0]
    assert [each.failure is not None for each in compared.candidates.values()] == [False, False, True]
    assert compared.winner is not None
    assert compared.winner.parameters["tp-size"] == 2
    launch = compared.winner.launches[0]
    result = recorded.view.trials[1].measurement.latest_results[compared.winner_points[0]]
    assert launch.figures[compared.winner_points[0]]["output_throughput"] == result.metrics.output_throughput / 2
    assert compared.winner_value == pytest.approx(launch.utilities[compared.winner_points[0]])


def test_attainment_at_the_baselines_load_is_gated():
    comparison = Comparison(run(candidate(STEADY)), run(candidate(STEADY, attainment=0.5)))
    attainment = comparison.gated[1]
    assert attainment.name == "attainment at the baseline's load"
    assert (attainment.baseline, attainment.new, attainment.change) == (1.0, 0.5, Change.WORSE)
    assert POINT in comparison.new.winner_points


def test_a_winner_at_another_load_leaves_the_attainment_unclear_and_says_so():
    launches = tuple(LaunchFigures(number, True, {}, {HIGHER: 3000.0}, {HIGHER: 1.0}) for number in (1, 2))
    new = run(replace(candidate([1.0]), launches=launches), name="after", winner_value=3e3, winner_points=(HIGHER,))
    comparison = Comparison(run(candidate(STEADY)), new)
    assert [each.change for each in comparison.gated] == [Change.BETTER, Change.UNCLEAR]
    text = headline(comparison)
    assert text.startswith(
        "Unclear in attainment at the baseline's load: after was not measured there. Better in total"
    )


def test_the_headline_names_the_figure_that_decides():
    worse_attainment = run(candidate([1100.0, 1101.0, 1099.0], attainment=0.5), name="after")
    text = headline(Comparison(run(candidate(STEADY)), worse_attainment))
    assert text.startswith("after is worse: attainment at the baseline's load -50.0%")
    assert "throughput" not in text


def test_a_confirmation_without_trusted_figures_leaves_those_of_the_search():
    searched = candidate(STEADY, confirmed=False)
    empty = LaunchFigures(9, True, {}, {}, {})
    comparison = Comparison(run(replace(searched, launches=(*searched.launches, empty))), run(candidate(STEADY)))
    objective = comparison.gated[0]
    assert (objective.change, objective.ratio and objective.ratio.baseline_launches) == (Change.SAME, 3)
