"""The page of comparisons: whole without scripts, everything hostile as text."""

import json
import re
from html.parser import HTMLParser

import pytest

from autotuner.compare.changes import Change
from autotuner.compare.comparison import Comparison
from autotuner.compare.forest_plot import WIDTH, ForestRow, forest_plot
from autotuner.compare.frontier_overlay import OverlayPoint, frontier_of, overlay_points
from autotuner.compare.gate import decide
from autotuner.compare.headline import headline
from autotuner.compare.page import comparison_page
from tests.compare.builders import POINT, candidate, run
from tests.hostile import HOSTILE_TEXTS

FIGURES = {"output_throughput": 500.0, "goodput": 5.0, "ttft": 0.05, "tpot": 0.01, "e2e": 1.0}


class Page(HTMLParser):
    """The tags, attributes and texts of a document outside of style and script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._skipped = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._skipped = tag if tag in ("style", "script") else ""

    def handle_endtag(self, tag):
        self._skipped = ""

    def handle_data(self, data):
        if self._skipped == "script":
            self.scripts.append(data)
        elif not self._skipped:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def comparison(factor: float = 0.9, **fields) -> Comparison:
    def side(name: str, scale: float):
        noise = (1.0, 1.002, 0.998)
        figures = [FIGURES | {"output_throughput": 500 * scale * each, "tpot": 0.01 / scale / each} for each in noise]
        return run(candidate([1000 * scale * each for each in noise], figures=figures, **fields), name=name)

    return Comparison(side("before", 1.0), side("after", factor))


def test_the_verdict_the_changes_and_all_figures_stand_in_the_document():
    each = comparison()
    page = Page(comparison_page([each], [decide(each)]))
    assert headline(each) in page.text
    assert "▼ The gate does not pass." in page.text
    assert "▼ worse" in page.text
    assert "= same" in page.text
    assert "Nothing that the runs record" in page.text
    assert page.tags.count("svg") == 5 + 2 + 1
    assert [script for script in page.scripts if script.strip()][1:] == []
    assert json.loads(page.scripts[0])["comparisons"][0]["headline"] == headline(each)


def test_the_page_asks_for_nothing_and_has_no_inline_style_nor_handler():
    each = comparison()
    html = comparison_page([each], [None])
    page = Page(html)
    assert any((value or "").startswith("default-src 'none'; script-src 'sha256-") for _, value in page.attributes)
    assert not {"href", "src", "style"} & {name for name, _ in page.attributes}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not re.search(r"https?://", html)


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_hostile_names_stay_text(text):
    harmless, each = comparison(label="plain"), comparison(label=text)
    assert Page(comparison_page([each], [None])).tags == Page(comparison_page([harmless], [None])).tags


def test_a_simulated_comparison_says_so_in_its_title():
    before, after = (run(candidate([1000.0]), name=name, source="simulated") for name in ("before", "after"))
    html = comparison_page([Comparison(before, after)], [None])
    assert "<title>after against before (simulated) - autotune</title>" in html
    assert "SIMULATED, NOT MEASURED" in html


def test_several_runs_stand_one_after_another():
    html = comparison_page([comparison(0.9), comparison(1.2)], [None, None])
    assert html.count("What was changed") == 2


def marks(row: ForestRow, tolerance: float = 0.03) -> list[str]:
    return re.findall(r'd="([^"]*)"', str(forest_plot([row], tolerance)))


def test_the_dot_is_in_the_middle_where_nothing_changed_and_right_of_it_where_it_is_more():
    line, interval, dot = marks(ForestRow("g", "f", 1.0, (0.99, 1 / 0.99), Change.SAME))
    assert dot.startswith(f"M{WIDTH / 2:g} ")
    assert line.startswith(f"M{WIDTH / 2:g} ")
    start, end = (float(number) for number in re.findall(r"M([\d.]+) [\d.]+H([\d.]+)", interval)[0])
    assert start + end == pytest.approx(WIDTH, abs=0.1)
    assert float(marks(ForestRow("g", "f", 1.05, None, Change.UNCLEAR))[1].split()[0][1:]) > WIDTH / 2


def test_what_lies_beyond_the_axis_ends_at_its_edge():
    _, interval, dot = marks(ForestRow("g", "f", 40.0, (0.001, 90.0), Change.UNCLEAR))
    assert dot.startswith(f"M{WIDTH:g} ")
    assert interval == f"M0 10H{WIDTH:g}"


def test_a_frontier_has_the_points_that_no_other_one_beats():
    points = [
        OverlayPoint("c", str(load), x, y, meets)
        for load, x, y, meets in ((1, 100, 50, True), (2, 80, 90, True), (3, 70, 85, True), (4, 60, 200, False))
    ]
    assert [point.load for point in frontier_of(points)] == ["2", "1"]


def test_overlaid_points_are_means_over_launches_in_tokens_per_second():
    (point,) = overlay_points(comparison().baseline, POINT.scenario)
    assert point.throughput == pytest.approx(500, rel=0.01)
    assert point.interactivity == pytest.approx(100, rel=0.01)
    assert overlay_points(comparison().baseline, "D(1,1)") == []
