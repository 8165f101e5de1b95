from dataclasses import replace

import pytest

from autotuner.report.frontier import frontier_members, frontier_table, frontier_title


def test_the_frontier_is_in_output_tokens_most_interactive_first(make_run):
    run = make_run()
    texts = frontier_table(run.trials, run.experiment).cell_texts()
    # trial 2, on two GPUs: 4 x 100 / 0.4636 s and 16 x 100 / 0.6064 s
    assert [(row["trial"], row["load"], row["output tokens/s/GPU"]) for row in texts] == [
        ("2", "4", "431"),
        ("2", "16", "1,320"),
    ]
    assert "scenario" not in texts[0]


@pytest.mark.parametrize(("slo", "members"), [({}, 2), ({"ttft": 0.03}, 1), ({"ttft": 0.001}, 0)])
def test_only_load_points_that_meet_the_targets_are_on_the_frontier(make_run, slo, members):
    run = make_run(slo=slo)
    table = frontier_table(run.trials, run.experiment)
    assert len(table.rows) == members
    assert {row["verdict"] for row in table.rows} <= {"feasible"}
    assert frontier_title(run.experiment) == "Pareto frontier" + (
        " of load points that meet the targets" if slo else ""
    )


def test_a_confirmed_load_point_is_on_the_frontier_once(make_run):
    run = make_run()
    again = [replace(trial, number=9 + trial.number, purpose="confirmation") for trial in run.trials[:2]]
    assert (
        frontier_table([*run.trials, *again], run.experiment).cell_texts()
        == frontier_table(run.trials, run.experiment).cell_texts()
    )


def test_the_members_are_those_of_the_table(make_run):
    run = make_run()
    members = frontier_members(run.trials, run.experiment)
    numbers = {trial.candidate.key: trial.number for trial in run.trials}
    members_of_trials = [(numbers[key], point.concurrency) for key, point in members]
    assert sorted(members_of_trials) == sorted(
        (row["trial"], int(row["load"])) for row in frontier_table(run.trials, run.experiment).rows
    )


def test_the_frontier_has_a_cost_column_with_a_price(make_run):
    run = make_run(price=3.6)
    (first, *_) = frontier_table(run.trials, run.experiment).cell_texts()
    assert float(first["currency / 1M output tokens"]) > 0
