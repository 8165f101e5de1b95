"""A load test as one page without scripts, and as Markdown."""

from dataclasses import replace

import pytest

from autotuner.core import Verdict
from autotuner.report.bench.page import best_load_sentence, load_test_markdown, load_test_page
from autotuner.scoring.judge import decide_verdict
from tests.factories import load_test
from tests.hostile import HOSTILE_TEXTS


@pytest.fixture
def tested(make_run):
    def make(source="measured", slo=None, **changes):
        run = make_run(slo=slo or {}, source=source)
        points = run.trials[0].measurement.load_points
        judged = [replace(result, verdict=decide_verdict(result, run.experiment.slo)) for result in points]
        return load_test(run.experiment, judged, source, **changes)

    return make


def test_the_page_holds_the_best_load_the_tables_and_its_source(tested):
    bench = tested(source="simulated", slo={"ttft": 1.0})
    page = load_test_page(bench)
    assert best_load_sentence(bench) in page
    assert "SIMULATED, NOT MEASURED" in page
    assert "(simulated) - autotune</title>" in page
    assert page.count("<table") >= 3
    assert "winner" not in page.split("<body>")[1].split("<script")[0]
    assert " style=" not in page


def test_without_targets_the_best_load_is_that_of_the_measured_ones(tested):
    assert "output tokens/s at most of the measured loads: " in best_load_sentence(tested())


def test_where_no_load_meets_the_targets_that_is_said(tested):
    bench = tested(slo={"ttft": 1.0})
    points = [replace(point, verdict=Verdict.INFEASIBLE) for point in bench.load_points]
    assert best_load_sentence(load_test(bench.experiment, points, "measured")) == "No load point met the targets."


def test_pictures_of_the_folder_are_inside(tested, tmp_path):
    (tmp_path / "load.png").write_bytes(b"\x89PNG")
    page = load_test_page(replace(tested(), path=tmp_path))
    assert '<img src="data:image/png;base64,iVBORw==" alt="TTFT and TPOT against load">' in page
    assert page.count("<img") == 1


def test_the_markdown_has_the_same_tables(tested):
    text = load_test_markdown(tested(slo={"ttft": 1.0}))
    assert "## Throughput and verdicts" in text
    assert "| load | n |" in text


@pytest.mark.parametrize("text", HOSTILE_TEXTS[:3])
def test_a_hostile_model_name_stays_text(tested, text):
    bench = tested()
    model = bench.experiment.model.model_copy(update={"id_or_path": text})
    view = replace(bench.view, experiment=bench.experiment.model_copy(update={"model": model}))
    page = load_test_page(replace(bench, view=view))
    assert "<script>alert" not in page
    assert "<img src=x" not in page
