from dataclasses import replace

import pytest

from autotuner.core import Verdict
from autotuner.report.frontier import frontier_table, frontier_title


def test_the_frontier_is_in_output_tokens_most_interactive_first(make_run):
    run = make_run()
    texts = frontier_table(run.view).cell_texts()
    # trial 2, on two GPUs: 4 x 100 / 0.4636 s and 16 x 100 / 0.6064 s
    assert [(row["trial"], row["load"], row["output tokens/s/GPU"]) for row in texts] == [
        ("2", "4", "431"),
        ("2", "16", "1,320"),
    ]
    assert "scenario" not in texts[0]


@pytest.mark.parametrize(("slo", "members"), [({}, 2), ({"ttft": 0.03}, 1), ({"ttft": 0.001}, 0)])
def test_only_load_points_that_meet_the_targets_are_on_the_frontier(make_run, slo, members):
    run = make_run(slo=slo)
    table = frontier_table(run.view)
    assert len(table.rows) == members
    assert {row["verdict"] for row in table.rows} <= {"feasible"}
    assert frontier_title(run.experiment) == "Pareto frontier" + (
        " of load points that meet the targets" if slo else ""
    )


def test_a_confirmed_load_point_is_on_the_frontier_once(make_run):
    run = make_run()
    again = [replace(trial, number=9 + trial.number, purpose="confirmation") for trial in run.trials[:2]]
    once = frontier_table(run.view).cell_texts()
    run.trials += again
    assert frontier_table(run.view).cell_texts() == once


def test_the_members_are_those_of_the_table(make_run):
    run = make_run()
    members = [
        (trial.number, result.load_point.concurrency)
        for trial in run.view.trials
        for result in trial.results
        if run.view.is_on_frontier(trial, result)
    ]
    assert members == sorted((row["trial"], int(row["load"])) for row in frontier_table(run.view).rows)


@pytest.mark.parametrize("verdict", [Verdict.INVALID, Verdict.CLIENT_LIMITED, Verdict.SATURATED])
def test_an_untrusted_launch_of_a_candidate_on_the_frontier_is_not_on_it(make_run, verdict):
    view = make_run().view
    trial, result = next(
        (trial, result) for trial in view.trials for result in trial.results if view.is_on_frontier(trial, result)
    )
    assert not view.is_on_frontier(trial, replace(result, verdict=verdict))


def test_the_frontier_has_a_cost_column_with_a_price(make_run):
    run = make_run(price=3.6)
    (first, *_) = frontier_table(run.view).cell_texts()
    assert float(first["currency / 1M output tokens"]) > 0
