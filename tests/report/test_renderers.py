import csv as csv_module
import io
import json
from dataclasses import replace

import pytest

from autotuner.core import Candidate, GpuUse
from autotuner.report.csv import csv_text
from autotuner.report.markdown import markdown_report
from autotuner.report.record import run_record
from autotuner.report.run_view import RunView
from autotuner.report.search_summary import search_sentences
from autotuner.report.summary import common_failure_sentence
from tests.factories import Run, scored_result


def test_json_has_the_documented_shape(make_run):
    data = json.loads(json.dumps(run_record(make_run(slo={"ttft": 1.0}).view), allow_nan=False))
    point = data["trials"][1]["load_points"][1]
    assert point["scenario"] == "D(100,100)"
    assert point["concurrency"] == 16
    assert "rate" not in point
    assert (point["source"], point["verdict"]) == ("measured", "feasible")
    for name in ("ttft", "ttfo", "tpot", "itl", "e2e"):
        assert name in point["metrics"]
    statistics = {"mean", "sd", "min", "p25", "p50", "p75", "p90", "p95", "p99", "max", "n"}
    assert statistics <= set(point["metrics"]["ttft"])
    assert point["metrics"]["ttft"]["adj_p99"] == pytest.approx(0.052)
    assert set(point["metrics"]["attainment"]) == {"value", "low", "high", "n", "effective"}
    assert point["metrics"]["errors"] == {}
    assert point["metrics"]["output_throughput"] == pytest.approx(16 * 100 / 0.6064)
    assert point["validity"]["error-share"] == {"value": 0.0, "limit": "<= 0.01", "ok": True}


def test_json_has_no_bound_where_few_requests_give_none(make_run):
    data = run_record(make_run(loads=(2,)).view)
    assert data["trials"][0]["load_points"][0]["metrics"]["ttft"]["intervals"]["p99"][1] is None


def test_json_names_winner_sources_and_failures(make_run):
    data = run_record(make_run(source="simulated").view)
    assert (data["winner"], data["sources"]) == (2, ["simulated"])
    assert data["objective"] == {
        "name": "maximize_throughput",
        "label": "total throughput per GPU",
        "meaning": "total (prompt + output) tokens/s per GPU, each candidate at its best load point",
        "unit": "total tokens/s/GPU",
        "better": "higher",
    }
    assert [standing["trial"] for standing in data["ranking"]] == [2, 1, 3]
    assert data["ranking"][0]["load_points"] == ["D(100,100) @ 16"]
    failure = data["trials"][2]["failure"]
    assert failure == {"kind": "crashed-under-load", "said": "Killed | by\nthe kernel", "remedy": "Free some memory."}
    assert [standing["remedy"] for standing in data["ranking"]] == [None, None, "Free some memory."]


def test_json_and_csv_say_which_tokens_are_counted_what_they_cost_and_what_is_on_the_frontier(make_run):
    run = make_run(slo={"ttft": 0.055})
    points = [point for trial in run_record(run.view)["trials"] for point in trial["load_points"]]
    table = list(csv_module.DictReader(io.StringIO(csv_text(run.view))))
    # trial 2 at 16 in flight, on 2 GPUs
    figures = points[3]["metrics"]
    output = 16 * 100 / 0.6064
    expected = {
        "output_throughput": output,
        "total_throughput": 2 * output,
        "output_throughput_per_gpu": output / 2,
        "total_throughput_per_gpu": output,
        "gpu_seconds_per_million_output_tokens": 2e6 / output,
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    assert {name: float(table[3][name]) for name in expected} == pytest.approx(expected)
    assert "throughput" not in figures
    assert figures["cost_per_million_output_tokens"] is None
    assert table[3]["cost_per_million_output_tokens"] == ""
    # of the sound trials 42 and 78, 28 and 52 ms; the crashed one trades nothing off
    assert [point["pareto"] for point in points] == [False, False, True, True, False]
    assert [row["pareto"] for row in table] == ["false", "false", "true", "true", "false"]
    assert [point["near"] for point in points] == [[], [], [], ["ttft"], []]
    assert [row["near"] for row in table] == ["", "", "", "ttft", ""]


def test_with_a_price_every_report_has_the_cost_of_a_million_output_tokens(make_run):
    run = make_run(price=3.6)
    output = 16 * 100 / 0.6064
    point = run_record(run.view)["trials"][1]["load_points"][1]
    assert point["metrics"]["cost_per_million_output_tokens"] == pytest.approx(2 * 1000.0 / output)
    row = list(csv_module.DictReader(io.StringIO(csv_text(run.view))))[3]
    assert float(row["cost_per_million_output_tokens"]) == pytest.approx(2 * 1000.0 / output)
    assert markdown_report(run.view).count("| currency / 1M output tokens |") == 2


def test_csv_has_a_row_for_each_load_point_of_each_trial(make_run):
    table = list(csv_module.DictReader(io.StringIO(csv_text(make_run().view))))
    assert [(row["trial"], row["concurrency"]) for row in table] == [
        ("1", "4"),
        ("1", "16"),
        ("2", "4"),
        ("2", "16"),
        ("3", "4"),
    ]
    assert float(table[3]["ttft_mean"]) == pytest.approx(0.052)
    assert table[3]["tp-size"] == "2"
    assert table[3]["rank"] == "1"
    assert table[4]["failure"] == "crashed-under-load"
    assert {row["source"] for row in table} == {"measured"}


def test_csv_keeps_a_trial_that_measured_nothing(make_run):
    run = make_run(loads=(4,))
    run.trials[2] = replace(run.trials[2], measurement=replace(run.trials[2].measurement, load_points=()))
    table = list(csv_module.DictReader(io.StringIO(csv_text(run.view))))
    assert (table[-1]["trial"], table[-1]["ttft_mean"]) == ("3", "")


def test_markdown_names_the_winner_and_its_source(make_run):
    text = markdown_report(make_run(source="simulated").view, command="vllm serve tiny\n", picture="pareto.png")
    assert text.startswith("# chat\\_grid\n")
    assert "Best: **2,640 total tokens/s/GPU (2,640-2,640)** at D(100,100) @ 16, trial 2 (tp-size=2 " in text
    assert "> **Simulated: " in text
    assert text.count("Simulated: ") == 1
    assert "![Output throughput per GPU against interactivity](pareto.png)" in text
    assert "```sh\nvllm serve tiny\n```" in text


def test_markdown_has_the_command_of_the_defaults_beside_the_winners(make_run):
    text = markdown_report(
        make_run().view, command="vllm serve tiny --tensor-parallel-size 2\n", defaults_command="vllm serve tiny"
    )
    assert text.endswith("Launch command of the engine's defaults:\n\n```sh\nvllm serve tiny\n```\n")
    assert text.count("Launch command of the winner") == 1
    assert "engine's defaults:" not in markdown_report(make_run().view, command="vllm serve tiny")


def repeated(run, number, ttft, tpot):
    """The run with one more launch of trial `number`, to confirm it, at its heaviest load point."""
    again = scored_result(16, ttft, tpot, run.experiment)
    trial = run.trials[number - 1]
    measurement = replace(trial.measurement, load_points=(again,))
    run.trials.append(replace(trial, number=len(run.trials) + 1, measurement=measurement, purpose="confirmation"))
    return run


def test_json_has_the_figures_of_all_launches_of_a_candidate(make_run):
    # 52 and 62 ms; 1,320 and 16 x 100 / (0.062 + 99 x 0.0066 s) / 2 = 1,118 output tokens/s/GPU
    data = run_record(repeated(make_run(), 2, 0.062, 0.0066).view)
    light, heavy = data["ranking"][0]["figures"]
    assert (light["concurrency"], light["launches"]) == (4, 1)
    assert (heavy["concurrency"], heavy["launches"], heavy["requests"]) == (16, 2, 16 * 32 + 16 * 27)
    assert heavy["ttft_mean"] == pytest.approx(0.057)
    assert heavy["output_throughput_per_gpu"] == pytest.approx((800 / 0.6064 + 800 / 0.7154) / 2)
    assert heavy["pareto"] is True
    assert [trial["load_points"][-1]["pareto"] for trial in data["trials"]] == [False, True, False, True]


def test_csv_has_rank_and_candidate_on_every_launch(make_run):
    table = list(csv_module.DictReader(io.StringIO(csv_text(repeated(make_run(), 2, 0.062, 0.0066).view))))
    assert [(row["rank"], row["candidate"], row["trial"], row["purpose"]) for row in table if row["rank"] == "1"] == [
        ("1", "2", "2", "search"),
        ("1", "2", "2", "search"),
        ("1", "2", "4", "confirmation"),
    ]


def test_markdown_explains_the_objective_and_the_intervals(make_run):
    text = markdown_report(make_run("minimize_latency", loads=(2, 4)).view)
    assert (
        "Objective: minimize\\_latency, the mean end-to-end latency over all load points; "
        "not normalized by the number of GPUs of a candidate." in text
    )
    assert "95% confidence intervals in parentheses; an open end, as in " in text


def test_markdown_marks_what_is_near_a_target(make_run):
    text = markdown_report(make_run(slo={"ttft": 0.055}).view)
    assert "feasible (near)" in text
    assert ") is near a target at D(100,100) @ 16: ttft 0.052 s, target 0.055 s." in text
    assert "near: all targets are met" in text


def test_markdown_has_as_many_cells_in_every_row(make_run):
    text = markdown_report(make_run(slo={"ttft": 1.0}).view)
    ranked, front = text.split("Pareto frontier of load points that meet the targets:")
    for part, rows in ((ranked, 3), (front, 2)):
        lines = [line.replace("\\|", "") for line in part.splitlines() if line.startswith("|")]
        assert len(lines) == 2 + rows
        assert len({line.count("|") for line in lines}) == 1
    assert "Killed \\| by the kernel" in text


def test_refused_candidates_are_grouped_by_reason(make_run: type[Run]):
    run = make_run()
    refused = [(Candidate("vllm", {"tp-size": size}), "it does not fit") for size in range(1, 7)]
    refused.append((Candidate("vllm", {"tp-size": 8}), "it needs 8 GPUs and 4 may be used"))
    view = RunView.of(run.trials, run.experiment, refused=refused)
    text = markdown_report(view)
    assert "7 combinations refused before any launch:\n\n- tp-size=1; " in text
    assert "tp-size=4; and 2 more: it does not fit\n" in text
    assert "- tp-size=8: it needs 8 GPUs and 4 may be used\n" in text
    assert "refused" not in markdown_report(run.view)
    data = run_record(view)["refused"]
    assert data[6] == {
        "candidate": {"runtime": "vllm", "parameters": {"tp-size": 8}},
        "reason": "it needs 8 GPUs and 4 may be used",
    }


def metered(run):
    """The run with GPU readings on the load points of trial 2."""
    use = GpuUse(2, 100, 30_000.0, 1500.0, 1600.0, None, 90 << 30)
    points = tuple(replace(result, gpu_use=use) for result in run.trials[1].measurement.load_points)
    run.trials[1] = replace(run.trials[1], measurement=replace(run.trials[1].measurement, load_points=points))
    return run


def test_gpu_power_is_shown_where_it_was_metered(make_run):
    run = metered(make_run())
    trial = run_record(run.view)["trials"][1]["load_points"][0]
    assert trial["gpu_use"]["mean_watts"] == 1500.0
    assert trial["gpu_use"]["joules_per_token"] == 1500.0 / trial["metrics"]["output_throughput"]
    text = markdown_report(run.view)
    assert " W | J/output token |" in text
    assert "| 1,500 | " in text.replace("**", "")
    table = list(csv_module.DictReader(io.StringIO(csv_text(run.view))))
    assert [row["watts_mean"] for row in table if row["trial"] == "2"] == ["1500.0"] * 2
    assert {row["watts_mean"] for row in table if row["trial"] != "2"} == {""}


def test_no_report_has_gpu_columns_without_metering(make_run):
    run = make_run()
    assert "J/output token" not in markdown_report(run.view)
    assert "watts" not in csv_text(run.view)
    assert "gpu_use" not in run_record(run.view)["trials"][1]["load_points"][0]


def test_a_failure_that_all_launches_had_is_the_headline(make_run):
    run = make_run(count=3)
    failed = [replace(trial, measurement=run.trials[2].measurement) for trial in run.trials]
    trials = [replace(trial, measurement=replace(trial.measurement, load_points=())) for trial in failed]
    view = RunView.of(trials, run.experiment)
    headline = common_failure_sentence(view)
    assert headline == "All 3 launches failed, crashed-under-load: Killed | by\nthe kernel. Free some memory."
    assert "All 3 launches failed" in markdown_report(view).split("\n\n")[1]
    assert not any(".." in sentence for sentence in search_sentences(view))
    assert common_failure_sentence(run.view) == ""


def test_markdown_says_when_there_is_no_winner(make_run):
    run = make_run(slo={"ttft": {"threshold": 0.0001}})
    assert "none can be recommended" in markdown_report(run.view)


def test_a_winner_over_several_loads_names_the_mean(make_run):
    assert "geometric mean over 2 load points" in markdown_report(make_run("minimize_latency").view)
