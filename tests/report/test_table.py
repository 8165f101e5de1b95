import dataclasses

import pytest

from autotuner.core import Candidate, Check
from autotuner.report.table import ALWAYS_SHOWN, Column, Table, ranking_table
from tests.factories import Run, scored_result


def test_one_row_per_candidate_at_its_best_load_point(make_run):
    table = ranking_table(make_run().view)
    assert [(row["rank"], row["trial"], row["load"]) for row in table.rows] == [
        (1, 2, "16"),
        (2, 1, "16"),
        (3, 3, None),
    ]
    assert table.winner_row == 0
    first = table.cell_texts()[0]
    # 16 streams x 100 output tokens / (0.052 + 99 x 0.0056 s) on 2 GPUs = 1320, and as many of the prompts
    assert first["output tokens/s/GPU"] == "1,320"
    assert first["total tokens/s/GPU"] == "2,640 (2,640-2,640)"
    assert first["GPU-s / 1M output tokens"] == "758"
    assert first["TTFT ms"] == "52.0"
    assert first["TPOT ms"] == "5.60"
    assert first["E2E s"] == "0.606"
    assert first["n"] == str(16 * int(20 / 0.6064))
    assert first["source"] == "measured"


def test_only_parameters_that_differ_are_shown(make_run):
    table = ranking_table(make_run().view)
    assert table.cell_texts()[0]["candidate"] == "tp-size=2 enable-chunked-prefill=false"
    assert table.rows[0]["parameters"]["mem-fraction-static"] == 0.9


def launched_again(run, number, *figures):
    """The run with confirmations of trial `number`, each with (TTFT, TPOT) at 16 in flight."""
    trial = run.trials[number - 1]
    for ttft, tpot in figures:
        again = scored_result(16, ttft, tpot, run.experiment)
        measurement = dataclasses.replace(trial.measurement, load_points=(again,), failure=None)
        run.trials.append(
            dataclasses.replace(trial, number=len(run.trials) + 1, measurement=measurement, purpose="confirmation")
        )
    return run


def test_launches_of_a_candidate_are_one_row_with_the_means_over_them(make_run):
    table = ranking_table(launched_again(make_run(slo={"ttft": 1.0}), 2, (0.062, 0.0066), (0.042, 0.0046)).view)
    assert [row["trial"] for row in table.rows] == [2, 1, 3]
    first, second, _ = table.cell_texts()
    assert (first["launches"], second["launches"]) == ("3", "1")
    # 20 s of 16 streams, each request 0.6064, 0.7154 and 0.4974 s
    assert first["n"] == f"{16 * (32 + 27 + 40):,}"
    assert (first["TTFT ms"], first["TPOT ms"], first["E2E s"]) == ("52.0", "5.60", "0.606")
    assert first["output tokens/s/GPU"] == "1,350"  # (1,319 + 1,118 + 1,608) / 3
    assert first["SLO met %"] == "100 (100-100)"


def test_a_repeated_launch_widens_the_interval_of_the_value_and_its_legend_says_so(make_run):
    once = ranking_table(make_run().view)
    assert any("covers one launch only: none was repeated" in text for text in once.legends())
    table = ranking_table(launched_again(make_run(), 2, (0.062, 0.0066), (0.042, 0.0046)).view)
    value, ends = table.cell_texts()[0]["total tokens/s/GPU"].rstrip(")").split(" (")
    assert value == "2,670"  # the geometric mean of 2,639, 2,236 and 3,217
    low, high = (float(end.replace(",", "")) for end in ends.split("-"))
    assert low < 2236
    assert high > 3217
    assert any("includes the variation between launches" in text for text in table.legends())


def test_a_launch_without_a_steady_state_is_excluded_from_the_means(make_run):
    run = launched_again(make_run(), 2, (0.9, 0.09))
    again = run.trials[-1]
    bad = dataclasses.replace(again.results[0], validity=(Check("error-share", 0.5, "<= 0.01", ok=False),))
    run.trials[-1] = dataclasses.replace(again, measurement=dataclasses.replace(again.measurement, load_points=(bad,)))
    table = ranking_table(run.view)
    assert table.cell_texts()[0]["TTFT ms"] == "52.0"
    assert "launches" not in table.titles


def test_a_confirmation_that_failed_leaves_the_figures_of_those_that_did_not(make_run):
    run = launched_again(make_run(), 2, (0.062, 0.0066))
    failed = dataclasses.replace(run.trials[-1].measurement, load_points=(), failure=run.trials[2].measurement.failure)
    run.trials[-1] = dataclasses.replace(run.trials[-1], measurement=failed)
    assert ranking_table(run.view).cell_texts()[0]["TTFT ms"] == "52.0"


def test_a_tie_is_marked_behind_the_rank_and_explained(make_run):
    run = make_run()
    slower = dataclasses.replace(run.trials[1], number=4, candidate=Candidate("vllm", {"tp-size": 2, "x": 1}))
    run.trials.append(slower)
    table = ranking_table(run.view)
    assert [row["#"] for row in table.cell_texts()] == ["1", "2=", "3", "4"]
    assert "= after a rank: no significant difference from the first." in table.legends()
    assert not any("after a rank" in text for text in ranking_table(make_run().view).legends())


def test_the_defaults_are_named_as_such_and_shared_settings_are_listed_once(make_run):
    run = make_run()
    run.trials[0] = dataclasses.replace(run.trials[0], candidate=Candidate("vllm", {"tp-size": 2}), purpose="baseline")
    table = ranking_table(run.view)
    assert [row["candidate"] for row in table.rows] == [
        "mem-fraction-static=0.9 enable-chunked-prefill=false",
        "defaults (tp-size=2)",
        "kv-cache-dtype=fp8",
    ]
    assert table.shared_settings == (
        "All candidates: tp-size=2.",
        "All candidates except the defaults: mem-fraction-static=0.9 enable-chunked-prefill=false.",
    )
    assert table.notes[-1].startswith(
        "#3, trial 3 (mem-fraction-static=0.9 enable-chunked-prefill=false kv-cache-dtype=fp8): "
    )


@pytest.mark.parametrize(
    ("objective", "title", "text"),
    [
        ("minimize_latency", "E2E s", "0.606 (0.606-0.606)"),
        ("minimize_ttft", "TTFT ms", "52.0 (52.0-52.0)"),
        ("minimize_tpot", "TPOT ms", "5.60 (5.60-5.60)"),
        ("minimize_cost", "GPU-s / 1M output tokens", "758 (758-758)"),
    ],
)
def test_the_figure_that_decides_has_its_interval_in_the_one_column_it_is_in(make_run, objective, title, text):
    table = ranking_table(make_run(objective, loads=(16,)).view)
    assert table.titles.count(title) == 1
    assert next(row for row in table.cell_texts() if row["trial"] == "2")[title] == text


def test_runtimes_are_shown_where_they_differ(make_run):
    run = make_run()
    run.trials[0] = dataclasses.replace(run.trials[0], candidate=Candidate("sglang", {"tp-size": 1}))
    texts = ranking_table(run.view).cell_texts()
    assert [row["candidate"].split()[0] for row in texts] == ["vllm", "sglang", "vllm"]


def test_a_latency_has_a_row_for_each_load_and_its_head_once(make_run):
    table = ranking_table(make_run("minimize_latency").view)
    texts = table.cell_texts()
    assert [row["#"] for row in texts] == ["1", "", "2", "", "3"]
    assert [row["load"] for row in texts] == ["4", "16", "4", "16", ""]
    assert texts[1]["candidate"] == texts[1]["score"] == ""
    assert texts[0]["E2E s, geometric mean"] != ""
    assert [row["rank"] for row in table.rows] == [1, 1, 2, 2, 3]


def test_no_percentile_is_shown_without_its_interval(make_run):
    # 528 equal requests bound a p99 from both sides, 64 only from below
    texts = ranking_table(make_run().view).cell_texts()
    assert texts[0]["TTFT p99 ms"] == "52.0 (52.0-52.0)"
    few = ranking_table(make_run(loads=(2,)).view).cell_texts()
    assert few[0]["TTFT p99 ms"].endswith("-)")


def test_attainment_has_a_column_only_where_there_are_targets(make_run):
    assert "SLO met %" not in ranking_table(make_run().view).titles
    texts = ranking_table(make_run(slo={"ttft": 1.0}).view).cell_texts()
    assert texts[0]["SLO met %"] == "100 (99-100)"


def test_a_failed_trial_is_last_with_its_failure_and_no_figures(make_run):
    table = ranking_table(make_run().view)
    last = table.cell_texts()[-1]
    assert last["verdict"] == "crashed-under-load"
    assert last["TTFT ms"] == last["output tokens/s/GPU"] == last["score"] == ""
    assert table.notes[-1].startswith("#3, trial 3 (tp-size=2 ")
    assert table.notes[-1].endswith("): crashed-under-load: Killed | by\nthe kernel. Free some memory.")


def test_every_source_but_a_real_engine_is_noted(make_run):
    simulated = ranking_table(make_run(source="simulated").view)
    assert simulated.notes[0].startswith("Simulated: ")
    assert {row["source"] for row in simulated.cell_texts()} == {"simulated"}
    assert not any("imulated" in note for note in ranking_table(make_run().view).notes)


def test_a_limit_says_how_many_candidates_it_omits(make_run: type[Run]):
    table = ranking_table(make_run().view, limit=1)
    assert len(table.rows) == 1
    assert table.notes[-1] == "2 more not shown."


def test_numbers_are_right_aligned_and_words_are_not(make_run):
    table = ranking_table(make_run().view)
    assert {"#", "n", "TTFT ms", "output tokens/s/GPU", "score"} <= set(table.right_aligned_titles) <= set(table.titles)
    assert not {"candidate", "verdict", "source"} & set(table.right_aligned_titles)
    assert all(list(row) == table.titles for row in table.cell_texts())


def test_scenarios_have_a_column_where_there_are_several(make_run):
    table = ranking_table(make_run(scenarios=("D(100,100)", "D(200,100)")).view)
    assert [row["scenario"] for row in table.cell_texts()[:2]] == ["D(100,100)", "D(200,100)"]
    assert "scenario" not in ranking_table(make_run().view).titles


TOKENS = "output tokens/s/GPU"


@pytest.mark.parametrize("objective", ["minimize_latency", "maximize_throughput", "maximize_goodput", "minimize_cost"])
def test_output_tokens_are_the_first_throughput_and_every_one_says_which_tokens_it_counts(make_run, objective):
    titles = [
        title for title in ranking_table(make_run(objective, slo={"ttft": 1.0}).view).titles if "tokens/s" in title
    ]
    assert titles[0] == TOKENS
    assert all(title.split()[0] in ("output", "total") for title in titles)
    assert ("total tokens/s/GPU" in titles) is (objective == "maximize_throughput")


@pytest.mark.parametrize(
    ("changes", "sizes", "title"),
    [
        ({"price": 3.6}, (1, 1), "currency / 1M output tokens"),
        ({"price": 3.6}, (1, 2), "currency / 1M output tokens"),
        ({}, (1, 2), "GPU-s / 1M output tokens"),
        ({"objective": "minimize_cost"}, (1, 1), "GPU-s / 1M output tokens"),
        ({}, (2, 2), None),
    ],
)
def test_cost_is_shown_with_a_price_for_its_objective_or_where_gpus_differ(make_run, changes, sizes, title):
    run = make_run(count=2, **changes)
    for place, size in enumerate(sizes):
        candidate = Candidate("vllm", {**run.trials[place].candidate.parameters, "tp-size": size})
        run.trials[place] = dataclasses.replace(run.trials[place], candidate=candidate)
    assert [name for name in ranking_table(run.view).titles if name.endswith("1M output tokens")] == (
        [title] if title else []
    )


def test_a_verdict_near_a_target_is_marked_with_term_and_figure(make_run):
    table = ranking_table(make_run(slo={"ttft": 0.055, "tpot": {"threshold": 0.02}}).view)
    assert table.cell_texts()[0]["verdict"] == "feasible (near)"
    assert table.rows[0]["verdict"] == "feasible"
    (note,) = (note for note in table.notes if "near" in note)
    assert note.startswith("#1, trial 2 (tp-size=2 ")
    assert note.endswith(") is near a target at D(100,100) @ 16: ttft 0.052 s, target 0.055 s.")
    assert any(text.startswith("near: ") for text in table.legends())


@pytest.mark.parametrize("slo", [{}, {"ttft": 0.06}, {"ttft": 0.05}])
def test_a_verdict_far_from_its_targets_or_missing_them_is_not_marked(make_run, slo):
    table = ranking_table(make_run(slo=slo).view)
    assert not any("near" in row["verdict"] for row in table.cell_texts())
    assert not any("near a target" in note for note in table.notes)
    assert not any(text.startswith("near") for text in table.legends())


def test_a_minimum_met_within_its_warning_band_is_near_too(make_run):
    table = ranking_table(make_run(slo={"output_throughput": 2500}).view)
    assert table.cell_texts()[0]["verdict"] == "feasible (near)"
    (note,) = (note for note in table.notes if "near" in note)
    assert "output_throughput 2,639 output tokens/s, target 2500 output tokens/s" in note


def test_intervals_are_explained_for_the_shown_columns_only(make_run):
    table = ranking_table(make_run(loads=(2,)).view)
    assert "95% confidence intervals in parentheses; an open end" in table.legends()[0]
    assert table.legends(["TTFT ms", "candidate"]) == []


def test_columns_that_decide_the_ranking_are_never_dropped(make_run):
    for objective, title in (("minimize_latency", "E2E s"), ("minimize_cost", "GPU-s / 1M output tokens")):
        columns = {column.title: column.drop_priority for column in ranking_table(make_run(objective).view).columns}
        assert columns[title] == ALWAYS_SHOWN
        assert columns[TOKENS] == columns["verdict"] == ALWAYS_SHOWN
        assert columns["score"] > columns["TTFT p99 ms"] > columns["TTFT ms"]


def test_the_source_column_is_never_dropped_where_sources_differ(make_run):
    run = make_run()
    (one,) = (column for column in ranking_table(run.view).columns if column.title == "source")
    run.trials[0] = make_run(source="simulated").trials[0]
    (several,) = (column for column in ranking_table(run.view).columns if column.title == "source")
    assert one.drop_priority > several.drop_priority == ALWAYS_SHOWN


def test_an_empty_run_is_an_empty_table(make_run):
    run = make_run()
    run.trials = []
    assert ranking_table(run.view).cell_texts() == []


def test_a_table_without_ranks_blanks_no_cells():
    column = Column("load", lambda row: row["load"], first_row_only=True)
    table = Table((column,), ({"load": "4"}, {"load": "4"}))
    assert table.cell_texts() == [{"load": "4"}, {"load": "4"}]
