"""A load test as tables, as JSON and as CSV."""

import csv as csv_module
import io
from dataclasses import replace
from pathlib import Path

import pytest

from autotuner.core import Check, Failure, FailureKind, LoadPoint, Verdict
from autotuner.experiment import Benchmark
from autotuner.report.bench.record import bench_csv, bench_record
from autotuner.report.bench.table import check_tables, latency_table, verdict_table
from autotuner.scoring.judge import decide_verdict
from tests.factories import load_test


@pytest.fixture
def tested(make_run):
    """Two load points of the report tests' records, as if driven on one server."""

    def make(source="measured", slo=None, **changes):
        run = make_run(slo=slo or {}, source=source)
        points = run.trials[0].measurement.load_points
        judged = [replace(result, verdict=decide_verdict(result, run.experiment.slo)) for result in points]
        return load_test(run.experiment, judged, source, **changes)

    return make


def redriven(bench, *points):
    """The load test with other load points."""
    return load_test(bench.experiment, points, bench.source)


def test_a_row_for_each_load_point_with_intervals_where_they_matter(tested):
    table = latency_table(tested())
    assert [row["load"] for row in table.cell_texts()] == ["4", "16"]
    assert "scenario" not in table.titles
    assert "(" in table.cell_texts()[0]["TTFT p99 ms"]
    assert table.cell_texts()[0]["TTFT ms"] == "42.0"


def test_goodput_and_attainment_are_shown_when_there_are_targets(tested):
    assert "SLO met %" not in verdict_table(tested()).titles
    row = verdict_table(tested(slo={"ttft": 1.0})).cell_texts()[0]
    assert row["SLO met %"].startswith("100 (")
    assert float(row["good requests/s"]) > 0


def test_output_tokens_come_before_the_total_and_both_say_which_they_are(tested):
    bench = tested()
    row = verdict_table(bench).cell_texts()[0]
    # prompts and answers are of 100 tokens each
    assert 2 * float(row["output tokens/s"]) == pytest.approx(float(row["total tokens/s"]), rel=0.01)
    titles = verdict_table(bench).titles
    assert titles.index("output tokens/s") < titles.index("total tokens/s")
    (flat, _) = csv_module.DictReader(io.StringIO(bench_csv(bench)))
    assert 2 * float(flat["output_throughput"]) == pytest.approx(float(flat["total_throughput"]))
    assert "throughput" not in flat


def test_a_target_met_within_its_warning_band_is_marked_with_the_value(tested):
    # at 4 in flight TTFT is 42 ms, at 16 it is 78 ms
    bench = tested(slo={"ttft": 0.08})
    table = verdict_table(bench)
    assert [row["verdict"] for row in table.cell_texts()] == ["undecided", "feasible (near)"]
    assert "D(100,100) @ 16 is near a target: ttft 0.078 s, target 0.08 s." in table.notes
    assert any(text.startswith("near: ") for text in table.legends())
    assert [point["near"] for point in bench_record(bench)["load_points"]] == [[], ["ttft"]]
    assert [row["near"] for row in csv_module.DictReader(io.StringIO(bench_csv(bench)))] == ["", "ttft"]


def test_an_open_interval_is_explained_where_one_is_shown(tested):
    assert "an open end, as in " in " ".join(latency_table(tested()).legends())
    assert verdict_table(tested()).legends() == []


def test_a_simulated_test_is_marked_and_explains_why_a_load_point_is_infeasible(tested):
    table = verdict_table(tested(source="simulated", slo={"ttft": 0.001}))
    assert table.notes[0].startswith("Simulated")
    why = "0% of requests good, target 95% (mean ttft 0.042 s, target 0.001 s)"
    assert f"D(100,100) @ 4 is infeasible: {why}." in table.notes
    assert {row["source"] for row in table.cell_texts()} == {"simulated"}


def test_a_load_that_was_driven_again_has_its_own_column_of_checks(tested):
    bench = tested()
    first = bench.load_points[0]
    again = replace(first, validity=(Check("completed", 7, ">= 1 request", ok=True),))
    (row,) = (
        row
        for row in check_tables(redriven(bench, first, again, again))["D(100,100)"].cell_texts()
        if row["check"] == "completed"
    )
    assert [row["4 #2"], row["4 #3"]] == ["7", "7"]
    assert row["4"] != "7"


def test_a_replayed_trace_says_how_much_of_it_the_window_covered(tested):
    bench = tested()
    recorded = [{"requests": 4001, "seconds": 2000.0}]
    load = {"traffic_scenarios": ["file:t"], "request_rates": ["trace", 3], "arrival": "trace", "recorded": recorded}
    replayed = bench.experiment.model_copy(update={"benchmark": Benchmark.model_validate(load)})
    results = [replace(bench.load_points[0], load_point=LoadPoint("file:t", rate=rate)) for rate in (2.0, 3.0)]
    points = (*results, replace(results[0], decided="the trace ended"))
    notes = verdict_table(load_test(replayed, points)).notes
    requests = f"the first {results[0].metrics.requests} of the trace's 4,001 requests"
    assert f"file:t @ 2/s: the window covered {requests} (2,000 s in total)." in notes
    assert "file:t @ 2/s: the trace ended." in notes
    assert not any(note.startswith("file:t @ 3/s: ") for note in notes)


def test_a_server_that_delays_small_writes_is_noted_with_each_load_point(tested):
    sentence = (
        "The server delays small writes (Nagle): clients without TCP_QUICKACK see about 41 ms more to the first token."
    )
    delaying, other = tested(write_delay=0.0412), tested()
    assert sentence in verdict_table(delaying).notes
    assert [point["notes"] for point in bench_record(delaying)["load_points"]] == [[sentence]] * 2
    assert bench_record(delaying)["write_delay"] == 0.0412
    assert [point["notes"] for point in bench_record(other)["load_points"]] == [[]] * 2


def test_the_checks_stand_beside_each_other_with_what_failed_marked(tested):
    bench = tested()
    broken = replace(bench.load_points[1], validity=(Check("loop-lag-p99", 0.5, "<= 0.01 s", ok=False),))
    table = check_tables(redriven(bench, bench.load_points[0], broken))["D(100,100)"]
    rows = {row["check"]: row for row in table.cell_texts()}
    assert rows["loop-lag-p99"]["16"] == "0.500 !"
    assert {column.title: column.drop_priority for column in table.columns} == {"check": 0, "4": 2, "16": 0, "limit": 1}
    assert rows["completed"] == {"check": "completed", "4": rows["completed"]["4"], "16": "-", "limit": ">= 1 request"}


def test_errors_are_counted_by_class(tested):
    bench = tested()
    result = bench.load_points[0]
    metrics = replace(result.metrics, errors={"http-429": 3, "reset": 1})
    failing = replace(result, metrics=metrics, ended_early="The last 5 requests failed: reset.")
    table = verdict_table(redriven(bench, failing))
    assert table.cell_texts()[0]["errors"] == "http-429: 3, reset: 1"
    assert any("The last 5 requests failed" in note for note in table.notes)


@pytest.mark.parametrize(
    ("counts", "note"),
    [
        ({"usage": 100}, None),
        ({"running usage": 100}, None),
        ({"events": 100}, "D(100,100) @ 4, D(100,100) @ 16: tokens are counted by the events of the stream, because"),
        ({"usage": 98, "events": 2}, "that fits them in 2 of 100 answers."),
        ({"listed tokens": 100}, "tokens are counted by the token ids or log probabilities, because"),
    ],
)
def test_a_note_says_which_load_points_have_no_usage_that_fits(tested, counts, note):
    bench = tested()
    points = [replace(point, metrics=replace(point.metrics, token_counts=counts)) for point in bench.load_points]
    table = verdict_table(redriven(bench, *points))
    assert [text for text in table.notes if "counted by" in text and note in text] if note else not table.notes
    assert bench_record(redriven(bench, *points))["load_points"][0]["metrics"]["token_counts"] == counts


def test_the_first_message_of_each_class_of_error_is_a_note(tested):
    bench = tested()
    first, second = bench.load_points
    messages = {"malformed": "Not understood: {x", "http-429": "Slow down."}
    points = (replace(first, error_messages=messages), second)
    table = verdict_table(redriven(bench, *points))
    assert "D(100,100) @ 4, malformed: Not understood: {x." in table.notes
    assert "D(100,100) @ 4, http-429: Slow down." in table.notes
    assert bench_record(redriven(bench, *points))["load_points"][0]["error_messages"] == messages


def test_the_json_has_the_documented_shape_in_seconds(tested):
    died = Failure(FailureKind.HUNG_UNDER_LOAD, "it died", "")
    data = bench_record(tested(slo={"ttft": {"p90": 1.0}}, failure=died, path=Path("out")))
    point = data["load_points"][0]
    assert (point["concurrency"], point["records"], data["stopped"]) == (4, "trials/001/records-1.npz", "it died")
    assert point["metrics"]["ttft"]["mean"] == pytest.approx(0.042)
    assert data["slo"] == {"attainment": 0.95, "terms": [{"metric": "ttft", "statistic": "p90", "threshold": 1.0}]}
    assert point["validity"]["completed"]["ok"]
    assert "output_throughput_per_gpu" not in point["metrics"], "nobody said how many GPUs serve"


def test_the_csv_has_the_same_figures(tested):
    bench = tested()
    rows = list(csv_module.DictReader(io.StringIO(bench_csv(bench))))
    assert [float(row["ttft_mean"]) for row in rows] == [p.metrics.ttft.mean for p in bench.load_points]
    assert {row["verdict"] for row in rows} == {Verdict.FEASIBLE}


def test_a_test_without_a_load_point_has_empty_tables(tested):
    nothing = redriven(tested())
    assert not latency_table(nothing).rows
    assert bench_record(nothing)["load_points"] == []
    assert nothing.meets_slo
