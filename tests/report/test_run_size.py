"""What is shown of a large run is bounded, and complete where it is data; nothing takes quadratic time."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from autotuner.core import Candidate, LoadPoint, Measurement, Purpose, Trial
from autotuner.report import setting_effects as setting_effects_module
from autotuner.report.environment_text import MAX_NAMED_RANGES, parallel_trials_note
from autotuner.report.frontier import MAX_ROWS as MAX_FRONTIER_ROWS
from autotuner.report.frontier import frontier_table
from autotuner.report.markdown import markdown_report
from autotuner.report.page import content
from autotuner.report.page.content import POINT_COLUMNS, page_figures
from autotuner.report.plots import MAX_DRAWN_POINTS, _draw_markers, drawn_points
from autotuner.report.record import MAX_DETAILED_LOAD_POINTS, run_record
from autotuner.report.refused import reason_lines
from autotuner.report.run_view import RunView
from autotuner.report.search_summary import MAX_NAMED_TIES, tie_sentences
from autotuner.report.setting_effects import setting_effects
from autotuner.report.table import ranking_table
from autotuner.scoring.pareto import AXES, pareto_points
from autotuner.search.protocol import SearchReport
from tests.factories import experiment, load_point_result

LOADS = (1, 2, 4, 8, 16, 32, 64, 128)
CANDIDATES = 300


def large_run(candidates: int, loads=LOADS, **changes) -> RunView:
    """A baseline and candidates with one value of a parameter each, worse by up to 10% from one to the next."""
    values = list(range(1, candidates))
    question = experiment(
        parameters={"max-running-requests": values},
        optimization={"objective": "minimize_latency"},
        benchmark={"traffic_scenarios": ["D(100,100)"], "num_concurrency": loads},
    )
    trials = []
    for number in range(1, candidates + 1):
        results = tuple(
            load_point_result(LoadPoint("D(100,100)", concurrency=load), 100.0 * load - number / 10, 1 + number / 1000)
            for load in loads
        )
        is_baseline = number == candidates  # the worst: a limit on candidates would leave it out
        candidate = Candidate("sim", {} if is_baseline else {"max-running-requests": number})
        purpose: Purpose = "baseline" if is_baseline else "search"
        trials.append(Trial(number, candidate, Measurement("simulated", results), 0.0, 1.0, purpose))
    return RunView.of(trials, question, **changes)


@pytest.fixture(scope="module")
def view() -> RunView:
    reasons = [(Candidate("sim", {"max-running-requests": i}), f"predicted: at most {i}x") for i in range(1000)]
    return large_run(CANDIDATES, search_report=SearchReport(skipped=tuple(reasons)))


def test_a_table_ends_after_its_rows_and_says_how_many_candidates_it_leaves_out(view):
    table = ranking_table(view, limit=100, max_rows=41)
    assert len(table.rows) == 40  # five candidates of eight load points, none of them cut
    assert table.notes[-1] == "295 more not shown."


def test_a_table_always_has_the_first_candidate(view):
    assert len(ranking_table(view, max_rows=1).rows) == len(LOADS)


def test_the_markdown_report_stays_short(view):
    text = markdown_report(view)
    assert len(text.splitlines()) < 1000
    assert "more not shown" in text
    assert "and 800 more, for 800 other reasons" in text


def test_the_json_of_a_large_run_has_every_load_point_in_few_bytes(view):
    data = run_record(view)
    points = [point for trial in data["trials"] for point in trial["load_points"]]
    assert len(points) == CANDIDATES * len(LOADS) > MAX_DETAILED_LOAD_POINTS
    assert [standing["trial"] for standing in data["ranking"]] == [s.trial_number for s in view.ranking.standings]
    assert data["details"] == "trials.jsonl"
    assert len(json.dumps(data["trials"], allow_nan=False)) < 600 * len(points)


def test_a_load_point_of_that_json_has_its_main_figures(view):
    point = run_record(view)["trials"][0]["load_points"][1]
    assert point == {
        "scenario": "D(100,100)",
        "concurrency": 2,
        "verdict": "feasible",
        "requests": 100,
        "ttft_mean": 0.1,
        "tpot_mean": pytest.approx((1.001 - 0.1) / 99, rel=1e-3),
        "e2e_mean": 1.001,
        "output_throughput": 99.95,
        "goodput": 0.9995,
        "attainment": None,
        "pareto": False,
    }


def test_the_json_of_a_small_run_has_all_figures(make_run):
    data = run_record(make_run().view)
    assert data["details"] is None
    assert data["ranking"][0]["figures"]
    assert data["trials"][0]["load_points"][0]["metrics"]["ttft"]["p99"]


def test_the_charts_of_the_page_have_the_first_candidates_and_the_defaults(view, monkeypatch):
    monkeypatch.setattr(content, "MAX_LOAD_POINTS", 800)
    figures = page_figures(view)
    assert len(figures["points"]) == 800 + len(LOADS)
    positions = {row[POINT_COLUMNS.index("candidate")] for row in figures["points"]}
    assert positions == set(range(len(figures["candidates"])))
    assert figures["candidates"][-1]["defaults"]


def test_the_plot_has_the_best_candidates_and_the_frontier(view):
    points = pareto_points(view.pooled_trials, view.experiment, (AXES["interactivity"], AXES["throughput"]))
    drawn = drawn_points(points, view.ranking)
    assert len(drawn) == MAX_DRAWN_POINTS < len(points)
    assert sum(point.trial.number == 1 for point in drawn) == len(LOADS)
    assert any(point.on_frontier for point in drawn)


def test_markers_of_one_style_are_drawn_at_once(view):
    points = pareto_points(view.pooled_trials, view.experiment, (AXES["interactivity"], AXES["throughput"]))
    drawn = []
    axes: Any = SimpleNamespace(plot=lambda xs, ys, **style: drawn.append(list(zip(xs, ys, strict=True))))
    _draw_markers(axes, points, view.ranking, {1: "blue"})
    assert len(drawn) < 10
    assert sorted(place for places in drawn for place in places) == sorted(point.coordinates for point in points)


def test_the_frontier_is_shown_from_end_to_end():
    results = tuple(
        load_point_result(LoadPoint("D(100,100)", concurrency=load), 100.0 * load, 1.0 + load)
        for load in range(1, MAX_FRONTIER_ROWS + 51)
    )
    trial = Trial(1, Candidate("sim"), Measurement("simulated", results), 0.0, 1.0)
    table = frontier_table(RunView.of([trial], experiment(optimization={"objective": "maximize_throughput"})))
    assert len(table.rows) == MAX_FRONTIER_ROWS
    assert (table.rows[0]["load"], table.rows[-1]["load"]) == ("1", "150")
    assert table.notes == ("50 more load points of the frontier not shown.",)


def test_many_ties_are_counted():
    question = experiment(optimization={"objective": "maximize_throughput"})
    trials = [
        Trial(
            number,
            Candidate("sim", {"max-running-requests": number}),
            Measurement("simulated", (load_point_result(LoadPoint("D(100,100)", concurrency=1)),)),
            0.0,
            1.0,
            parallel_trials=(number + 1,) if number % 3 else (),
        )
        for number in range(1, 101)
    ]
    run = RunView.of(trials, question)
    (sentence,) = tie_sentences(run.ranking)
    assert sentence.endswith(f"trial {MAX_NAMED_TIES + 1} and {99 - MAX_NAMED_TIES} more.")
    assert parallel_trials_note(run).count(",") <= MAX_NAMED_RANGES


def test_reasons_beyond_the_limit_are_counted(view):
    lines = reason_lines(view.search_report.skipped, view.experiment, 20)
    assert len(lines) == 21
    assert lines[-1] == "and 980 more, for 980 other reasons"


def test_effects_of_settings_take_time_in_proportion_to_the_candidates(view, monkeypatch):
    made = []

    def counted(*fields):
        made.append(fields)
        return Candidate(*fields)

    monkeypatch.setattr(setting_effects_module, "Candidate", counted)
    effects = setting_effects(view)
    assert len(effects) == CANDIDATES - 2
    assert len(made) <= CANDIDATES
