import dataclasses

from autotuner.core import Candidate
from autotuner.report.table import Column, Table, rows


def test_one_row_per_candidate_at_its_best_load_point(make_run):
    table = rows(*make_run().all)
    assert [(row["rank"], row["trial"], row["load"]) for row in table.rows] == [
        (1, 2, "16"),
        (2, 1, "16"),
        (3, 3, None),
    ]
    assert table.winner == 0
    first = table.texts()[0]
    # 16 streams x 200 tokens / (0.052 + 99 x 0.0056 s) on 2 GPUs = 2640
    assert first["tokens/s/GPU"] == "2,640"
    assert first["TTFT ms"] == "52.0"
    assert first["TPOT ms"] == "5.60"
    assert first["E2E s"] == "0.606"
    assert first["n"] == str(16 * int(20 / 0.6064))
    assert first["source"] == "measured"


def test_only_parameters_that_differ_are_told(make_run):
    table = rows(*make_run().all)
    assert table.texts()[0]["candidate"] == "tp-size=2 enable-chunked-prefill=false"
    assert table.rows[0]["parameters"]["mem-fraction-static"] == 0.9


def test_runtimes_are_told_where_they_differ(make_run):
    run = make_run()
    run.trials[0] = dataclasses.replace(run.trials[0], candidate=Candidate("sglang", {"tp-size": 1}))
    texts = rows(*run.all).texts()
    assert [row["candidate"].split()[0] for row in texts] == ["vllm", "sglang", "vllm"]


def test_a_latency_has_a_row_for_each_load_and_its_head_once(make_run):
    table = rows(*make_run("minimize_latency").all)
    texts = table.texts()
    assert [row["#"] for row in texts] == ["1", "", "2", "", "3"]
    assert [row["load"] for row in texts] == ["4", "16", "4", "16", ""]
    assert texts[1]["candidate"] == texts[1]["score"] == ""
    assert texts[0]["E2E s, geometric mean"] != ""
    assert [row["rank"] for row in table.rows] == [1, 1, 2, 2, 3]


def test_no_percentile_is_shown_without_its_interval(make_run):
    # 528 equal requests bound a p99 from both sides, 64 only from below
    texts = rows(*make_run().all).texts()
    assert texts[0]["TTFT p99 ms"] == "52.0 (52.0-52.0)"
    few = rows(*make_run(loads=(2,)).all).texts()
    assert few[0]["TTFT p99 ms"].endswith("-)")


def test_attainment_has_a_column_only_where_there_are_targets(make_run):
    assert "SLO met %" not in rows(*make_run().all).titles
    texts = rows(*make_run(slo={"ttft": 1.0}).all).texts()
    assert texts[0]["SLO met %"] == "100 (99-100)"


def test_a_failed_trial_is_last_with_its_failure_and_no_figures(make_run):
    table = rows(*make_run().all)
    last = table.texts()[-1]
    assert last["verdict"] == "crashed-under-load"
    assert last["TTFT ms"] == last["tokens/s/GPU"] == last["score"] == ""
    assert "#3, trial 3: crashed-under-load: Killed | by\nthe kernel." in table.notes


def test_every_source_but_a_real_engine_is_noted(make_run):
    simulated = rows(*make_run(source="simulated").all)
    assert simulated.notes[0].startswith("Simulated: ")
    assert {row["source"] for row in simulated.texts()} == {"simulated"}
    assert not any("imulated" in note for note in rows(*make_run().all).notes)


def test_a_limit_says_what_it_leaves_out(make_run):
    table = rows(*make_run().all, limit=1)
    assert len(table.rows) == 1
    assert table.notes[-1] == "2 more not shown."


def test_numbers_are_right_aligned_and_words_are_not(make_run):
    table = rows(*make_run().all)
    assert {"#", "n", "TTFT ms", "tokens/s/GPU", "score"} <= set(table.right) <= set(table.titles)
    assert not {"candidate", "verdict", "source"} & set(table.right)
    assert all(list(row) == table.titles for row in table.texts())


def test_scenarios_have_a_column_where_there_are_several(make_run):
    table = rows(*make_run(scenarios=("D(100,100)", "D(200,100)")).all)
    assert [row["scenario"] for row in table.texts()[:2]] == ["D(100,100)", "D(200,100)"]
    assert "scenario" not in rows(*make_run().all).titles


def test_an_empty_run_is_an_empty_table(make_run):
    run = make_run()
    run.trials = []
    assert rows(*run.all).texts() == []


def test_a_table_without_ranks_repeats_nothing_away():
    column = Column("load", lambda row: row["load"], once=True)
    table = Table((column,), ({"load": "4"}, {"load": "4"}))
    assert table.texts() == [{"load": "4"}, {"load": "4"}]
