"""The page of a run without a browser: verdict, command and tables in the document, and its data."""

import json
import re
from dataclasses import replace
from html import unescape

import pytest

from autotuner.core import LoadPoint
from autotuner.report.page.content import page_details, page_figures, shown_launches
from autotuner.report.page.run_page import REDUCTIONS, run_page
from autotuner.report.record import run_record
from autotuner.report.run_view import RunView
from autotuner.runs.store import RunStore
from tests.factories import Run
from tests.hostile import HOSTILE_TEXTS
from tests.pages import make_run_folder, run_trials, write_trial


def text_of(html):
    body = html[html.index("<body>") : html.index('<script type="application/json"')]
    return unescape(re.sub(r"<[^>]+>", " ", body))


@pytest.fixture(scope="module")
def page(run_folder):
    return run_page(run_folder)


def test_winner_command_and_tables_stand_in_the_document(page, run_folder):
    text, record = text_of(page.html), run_record(RunView.from_store(run_folder))
    assert f"Best of 5 candidates: trial {record['winner']}, feasible" in text
    assert re.search(r"Confirmed: \d\.\d\dx the total throughput per GPU of the engine's own defaults", text)
    assert "MEASURED" in text
    assert "vllm serve tiny-model" in text
    assert "max-num-seqs=64" in text
    assert text.count("crashed-under-load") >= 1
    assert "1 refused before any launch: needs 4 GPUs" in text
    assert "experiment.yaml" in text
    assert "TTFT ≤ 60 ms, TPOT ≤ 7.5 ms for 95% of requests" in text


def test_points_are_the_pooled_figures_of_the_report(page, run_folder):
    content, record = page.content, run_record(RunView.from_store(run_folder))
    points = [dict(zip(content["columns"], row, strict=True)) for row in content["points"]]
    figures = [figure for standing in record["ranking"] for figure in standing["figures"]]
    assert len(points) == len(figures)
    for point, figure in zip(points, figures, strict=True):
        assert point["load"] == figure["concurrency"]
        assert point["verdict"] == figure["verdict"]
        assert point["output"] == pytest.approx(figure["output_throughput_per_gpu"], rel=1e-5)
        assert point["ttft"] == pytest.approx(figure["ttft_mean"], rel=1e-5)
        assert point["good"] == pytest.approx(figure["attainment"]["value"], rel=1e-5)
        assert point["n"] == figure["requests"]
        assert point["at"] == str(LoadPoint(figure["scenario"], figure["concurrency"]))
        assert point["launches"] == figure["launches"]


@pytest.mark.parametrize("rate", [33.333333333333336, 2.0, 1e-05])
def test_a_load_point_has_one_text_in_all_data_of_the_page(rate):
    recorded = Run()
    (trial, *_) = recorded.trials
    open_loop = replace(trial.results[0], load_point=LoadPoint("D(100,100)", rate=rate))
    trial = replace(trial, measurement=replace(trial.measurement, load_points=(open_loop,)))
    content = page_figures(RunView.of([trial], recorded.experiment))
    texts = [row[content["columns"].index("at")] for row in content["points"]]
    assert texts == [str(open_loop.load_point)]
    assert set(content["candidates"][0]["best"]) <= set(texts)


def test_requests_are_those_of_all_pooled_launches(page):
    content = page.content
    first = dict(zip(content["columns"], content["points"][0], strict=True))
    assert first["launches"] == 2
    assert content["requests"]["0"]["n"] == first["n"]


@pytest.mark.parametrize("text", HOSTILE_TEXTS[:4])
def test_hostile_texts_of_a_run_make_no_element_and_end_no_script(tmp_path, text):
    html = run_page(make_run_folder(tmp_path, candidates=3, text=text)).html
    tags = set(re.findall(r"<([a-z][a-z0-9]*)", re.sub(r"(?s)<script.*?</script>|<style.*?</style>", "", html)))
    assert not tags & {"img", "svg", "iframe", "script"}
    assert html.count("<script") == html.count("</script>") == 2
    assert json.loads(html.split('id="data">')[1].split("</script>")[0])["candidates"]


def test_a_page_within_no_budget_drops_details_and_says_which(run_folder):
    small = run_page(run_folder, budget=80_000)
    assert "leaves out" in text_of(small.html)
    assert small.content["omitted"]
    assert len(json.dumps(small.content)) < len(json.dumps(run_page(run_folder).content))
    assert "Best of 5 candidates" in text_of(small.html)


def test_details_are_dropped_in_the_stated_order(run_folder):
    view = RunView.from_store(run_folder)
    shown = shown_launches(view, run_folder)
    sizes = [len(json.dumps(page_details(view, shown, run_folder.path, detail))) for _, detail in REDUCTIONS]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] / 2


def test_a_run_that_goes_on_says_so_and_claims_nothing_that_only_its_end_can_tell(tmp_path):
    text = text_of(run_page(make_run_folder(tmp_path, candidates=2, finished=False)).html)
    assert "so far" in text
    assert "interrupted before its end" in text
    store = make_run_folder(tmp_path / "unconfirmed", candidates=0, finished=False)
    (store.path / "trials.jsonl").write_text((store.path / "trials.jsonl").read_text().splitlines(True)[0])
    text = text_of(run_page(RunStore.open(store.path)).html)
    assert "not confirmed yet" in text
    assert "Confirmed" not in text


def test_a_run_without_a_finished_launch_has_a_page(tmp_path):
    store = make_run_folder(tmp_path, candidates=0, finished=False)
    (store.path / "trials.jsonl").write_text("")
    page = run_page(store)
    assert "No launch has finished yet." in text_of(page.html)
    assert page.content["points"] == []


def test_where_nothing_is_feasible_the_nearest_candidate_and_what_it_misses_are_named(tmp_path):
    text = text_of(run_page(make_run_folder(tmp_path, config={"slo": {"ttft": 0.001}})).html)
    assert "No candidate meets the targets" in text
    assert re.search(r"Nearest: trial \d+ .*of requests good, target 95%", text)
    assert "Launch command of the nearest candidate" in text


def test_missing_and_damaged_records_leave_the_rest_of_the_page(tmp_path):
    store = make_run_folder(tmp_path, candidates=2)
    for path in (store.path / "trials").glob("*/records-*.npz"):
        path.write_bytes(b"damaged")
    for path in (store.path / "trials").glob("*/server.log"):
        path.unlink()
    (store.path / "provenance.yaml").write_text("[")
    page = run_page(store)
    assert page.content["requests"] == {}
    assert len(page.content["points"]) == 6
    assert "Best of 3 candidates" in text_of(page.html)


def test_logs_lose_terminal_sequences_and_credentials(tmp_path):
    store = make_run_folder(tmp_path, candidates=0)
    log = store.path / "trials" / "001" / "server.log"
    log.write_text("\x1b[31mred\x1b[0m\nGET http://user:secret@host/x\nprogress 1%\rprogress 2%\n")
    launches = run_page(store).content["launches"]["trials"]
    assert launches["1"]["log"] == ["red", "GET http://***@host/x", "progress 2%"]


def test_a_new_trial_changes_the_page(tmp_path):
    store = make_run_folder(tmp_path, candidates=1, finished=False)
    before = run_page(store)
    more = run_trials(store.experiment, 3)[2]
    write_trial(store, type(more)(9, more.candidate, more.measurement, more.started, more.ended))
    after = run_page(store)
    assert len(after.content["points"]) == len(before.content["points"]) + 2
    assert after.sections["candidates-table"] != before.sections["candidates-table"]
