from xml.etree import ElementTree

import pytest

from autotuner.compare.baseline_file import save_baseline
from autotuner.compare.comparison import Comparison
from autotuner.compare.gate import decide
from autotuner.compare.github import annotation_lines, append_summary
from autotuner.compare.headline import headline
from autotuner.compare.junit import write_junit
from autotuner.compare.markdown import COMMENT_LIMIT, comment_markdown, comparison_markdown
from autotuner.compare.record import comparison_record
from autotuner.errors import RunStoreError
from tests.compare.builders import candidate, run

HOSTILE = "a|b<script>\x1b[31m*x*\x00--> %0A"


def comparison(new=(900.0, 901.0, 899.0), name=HOSTILE) -> Comparison:
    return Comparison(run(candidate([1000.0, 1001.0, 999.0]), name=HOSTILE), run(candidate(list(new)), name=name))


def test_junit_has_a_failure_for_worse_and_a_skip_for_unclear(tmp_path):
    worse, unclear = comparison(), comparison(new=(1000.0, 1200.0, 800.0))
    write_junit(tmp_path / "j.xml", [worse, unclear], [decide(worse), decide(unclear)])
    first, second = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert (first.get("tests"), first.get("failures"), first.get("skipped")) == ("2", "1", "0")
    assert (second.get("failures"), second.get("skipped")) == ("0", "1")
    assert first.findall("testcase/failure")[0].get("message", "").startswith("worse: -10.0%")


def test_markdown_keeps_hostile_names_as_text():
    each = comparison()
    text = comparison_markdown([each], [decide(each)])
    assert "<script>" not in text.split("-->", 1)[1]
    assert text.count("-->") == 1
    assert "| total throughput per GPU of the winner |" in text
    assert "What was changed" not in text


@pytest.mark.parametrize("label", ["fp8_e4m3", "a*b", "x|y"])
def test_a_label_in_html_has_no_escapes_of_markdown(label):
    figures = [{"output_throughput": 500.0}]
    side = run(candidate([1000.0], figures=figures, label=label))
    assert f"<summary>{label}</summary>" in comparison_markdown([Comparison(side, side)], [None])


def test_a_comment_is_cut_at_a_line_and_says_so():
    text = comment_markdown("line of text\n" * 20_000)
    assert len(text) <= COMMENT_LIMIT
    assert text.endswith("a comment holds no more.*\n")
    assert comment_markdown("short\n") == "short\n"


def test_annotations_are_one_line_each_and_escaped():
    each = comparison(name="50%\nbad")
    lines = annotation_lines(each, decide(each))
    assert len(lines) == 1
    assert lines[0].startswith("::error title=total throughput per GPU of the winner worse::50%25%0Abad: -10.0%25")


def test_the_summary_is_appended_where_github_wants_it(tmp_path, monkeypatch):
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    append_summary("after\n")
    assert path.read_text() == "before\nafter\n"
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    append_summary("nowhere")
    assert path.read_text() == "before\nafter\n"


def test_the_record_has_ratios_intervals_and_states():
    each = comparison()
    record = comparison_record(each, decide(each))
    assert (record["gate"], record["gated"][0]["state"], record["gated"][0]["change"]) == ("worse", "worse", "worse")
    assert record["gated"][0]["interval"][0] < record["gated"][0]["ratio"] < record["gated"][0]["interval"][1]


def test_load_tests_have_no_winner_and_no_launches():
    before, after = (
        run(candidate(values, label="load points"), name=name, is_load_test=True)
        for name, values in (("before", [1000.0]), ("after", [900.0]))
    )
    each = Comparison(before, after)
    text = comparison_markdown([each], [decide(each)])
    assert "total throughput per GPU of the best load point" in text
    assert "| load tests |" in text
    assert "one load test each" in text
    assert "winner" not in text
    assert "launch" not in text


def test_a_load_test_against_a_tuned_run_is_compared_as_runs():
    each = Comparison(run(candidate([1000.0])), run(candidate([900.0]), is_load_test=True))
    assert each.words.best == "winner"
    assert "of the winner" in headline(each)


def test_a_load_test_that_met_no_target_is_said_to_have_no_best_load():
    each = Comparison(
        run(candidate([1000.0]), winner=None, name="before", is_load_test=True),
        run(candidate([900.0]), is_load_test=True),
    )
    assert headline(each) == "before has no best load point, so that there is nothing to compare with."


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: write_junit(folder, [comparison()], [decide(comparison())]),
        lambda folder: save_baseline(comparison().new, folder),
        lambda folder: append_summary("text"),
    ],
)
def test_a_folder_in_the_place_of_a_file_is_explained(tmp_path, monkeypatch, write):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    with pytest.raises(RunStoreError, match="cannot be written"):
        write(tmp_path)
