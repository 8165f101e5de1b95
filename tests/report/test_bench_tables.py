"""A load test as tables, as JSON and as CSV."""

import csv as csv_module
import io
from dataclasses import replace

import pytest

from autotuner.core import Check, LoadPoint, Verdict
from autotuner.experiment import Benchmark
from autotuner.report.bench.record import csv, record
from autotuner.report.bench.result import BenchResult, Driven
from autotuner.report.bench.table import checks, latencies, verdicts
from autotuner.scoring.judge import verdict


@pytest.fixture
def tested(make_run):
    """Two load points of the report tests' records, as if driven on one server."""

    def make(source="measured", slo=None, **changes):
        run = make_run(slo=slo or {}, source=source)
        points = run.trials[0].measurement.load_points
        judged = [replace(result, verdict=verdict(result, run.experiment.slo)) for result in points]
        fields = {"planned": len(points), "started": 0.0}
        driven = tuple(Driven(result, records=f"records-{n}.npz") for n, result in enumerate(judged, start=1))
        return BenchResult("http://h:1", run.experiment, source, driven, **(fields | changes))

    return make


def test_a_row_for_each_load_point_with_intervals_where_they_matter(tested):
    table = latencies(tested())
    assert [row["load"] for row in table.texts()] == ["4", "16"]
    assert "scenario" not in table.titles
    assert "(" in table.texts()[0]["TTFT p99 ms"]
    assert table.texts()[0]["TTFT ms"] == "42.0"


def test_goodput_and_attainment_are_shown_when_there_are_targets(tested):
    assert "SLO met %" not in verdicts(tested()).titles
    row = verdicts(tested(slo={"ttft": 1.0})).texts()[0]
    assert row["SLO met %"].startswith("100 (")
    assert float(row["good requests/s"]) > 0


def test_output_tokens_come_before_the_total_and_both_say_which_they_are(tested):
    bench = tested()
    row = verdicts(bench).texts()[0]
    # prompts and answers are of 100 tokens each
    assert 2 * float(row["output tokens/s"]) == pytest.approx(float(row["total tokens/s"]), rel=0.01)
    titles = verdicts(bench).titles
    assert titles.index("output tokens/s") < titles.index("total tokens/s")
    (flat, _) = csv_module.DictReader(io.StringIO(csv(bench)))
    assert 2 * float(flat["output_throughput"]) == pytest.approx(float(flat["total_throughput"]))
    assert "throughput" not in flat


def test_a_target_met_by_little_is_marked_with_its_figure(tested):
    # at 4 in flight TTFT is 42 ms, at 16 it is 78 ms
    bench = tested(slo={"ttft": 0.08})
    table = verdicts(bench)
    assert [row["verdict"] for row in table.texts()] == ["undecided", "feasible (near)"]
    assert "D(100,100) @ 16 is near a target: ttft 0.078 s, target 0.08 s." in table.notes
    assert any(text.startswith("near: ") for text in table.legends())
    assert [point["near"] for point in record(bench)["load_points"]] == [[], ["ttft"]]
    assert [row["near"] for row in csv_module.DictReader(io.StringIO(csv(bench)))] == ["", "ttft"]


def test_an_open_interval_is_explained_where_one_is_shown(tested):
    assert "an open end, as in " in " ".join(latencies(tested()).legends())
    assert verdicts(tested()).legends() == []


def test_a_simulated_test_says_so_and_why_a_load_point_is_no_good(tested):
    table = verdicts(tested(source="simulated", slo={"ttft": 0.001}))
    assert table.notes[0].startswith("Simulated")
    why = "0% of requests good, target 95% (mean ttft 0.042 s, target 0.001 s)"
    assert f"D(100,100) @ 4 is infeasible: {why}." in table.notes
    assert {row["source"] for row in table.texts()} == {"simulated"}


def test_a_load_that_was_driven_again_has_its_own_column_of_checks(tested):
    bench = tested()
    first = bench.load_points[0]
    again = replace(first.result, validity=(Check("completed", 7, ">= 1 request", ok=True),))
    (row,) = (
        row
        for row in checks(replace(bench, load_points=(first, Driven(again), Driven(again))))["D(100,100)"].texts()
        if row["check"] == "completed"
    )
    assert [row["4 #2"], row["4 #3"]] == ["7", "7"]
    assert row["4"] != "7"


def test_a_replayed_trace_says_how_much_of_it_the_window_held(tested):
    bench = tested()
    recorded = [{"requests": 4001, "seconds": 2000.0}]
    load = {"traffic_scenarios": ["file:t"], "request_rates": ["trace", 3], "arrival": "trace", "recorded": recorded}
    replayed = bench.experiment.model_copy(update={"benchmark": Benchmark.model_validate(load)})
    of = [replace(bench.load_points[0].result, load_point=LoadPoint("file:t", rate=rate)) for rate in (2.0, 3.0)]
    points = (Driven(of[0]), Driven(of[1]), Driven(of[0], decided="the trace ended"))
    notes = verdicts(replace(bench, experiment=replayed, load_points=points)).notes
    held = f"the first {of[0].metrics.requests} of the trace's 4,001 requests"
    assert f"file:t @ 2/s: the window held {held}, which take 2,000 s." in notes
    assert "file:t @ 2/s: the trace ended." in notes
    assert not any(note.startswith("file:t @ 3/s: ") for note in notes)


def test_the_checks_stand_beside_each_other_with_what_failed_marked(tested):
    bench = tested()
    broken = replace(bench.load_points[1].result, validity=(Check("loop-lag-p99", 0.5, "<= 0.01 s", ok=False),))
    table = checks(replace(bench, load_points=(bench.load_points[0], Driven(broken))))["D(100,100)"]
    rows = {row["check"]: row for row in table.texts()}
    assert rows["loop-lag-p99"]["16"] == "0.500 !"
    assert {column.title: column.priority for column in table.columns} == {"check": 0, "4": 2, "16": 0, "limit": 1}
    assert rows["completed"] == {"check": "completed", "4": rows["completed"]["4"], "16": "-", "limit": ">= 1 request"}


def test_errors_are_told_by_class(tested):
    bench = tested()
    result = bench.load_points[0].result
    failing = replace(result, metrics=replace(result.metrics, errors={"http-429": 3, "reset": 1}))
    point = Driven(failing, ended_early="The last 5 requests failed: reset.")
    table = verdicts(replace(bench, load_points=(point,)))
    assert table.texts()[0]["errors"] == "http-429: 3, reset: 1"
    assert any("The last 5 requests failed" in note for note in table.notes)


def test_the_json_has_the_documented_shape_in_seconds(tested):
    data = record(tested(slo={"ttft": {"p90": 1.0}}, stopped="it died"))
    point = data["load_points"][0]
    assert (point["concurrency"], point["records"], data["stopped"]) == (4, "records-1.npz", "it died")
    assert point["metrics"]["ttft"]["mean"] == pytest.approx(0.042)
    assert data["slo"] == {"attainment": 0.95, "terms": [{"metric": "ttft", "statistic": "p90", "threshold": 1.0}]}
    assert point["validity"]["completed"]["ok"]
    assert "output_throughput_per_gpu" not in point["metrics"], "nobody said how many GPUs serve"


def test_the_csv_has_the_same_figures(tested):
    bench = tested()
    rows = list(csv_module.DictReader(io.StringIO(csv(bench))))
    assert [float(row["ttft_mean"]) for row in rows] == [p.result.metrics.ttft.mean for p in bench.load_points]
    assert {row["verdict"] for row in rows} == {Verdict.FEASIBLE}


def test_a_test_without_a_load_point_has_empty_tables(tested):
    nothing = replace(tested(), load_points=())
    assert not latencies(nothing).rows
    assert record(nothing)["load_points"] == []
    assert nothing.meets_slo
