"""The page of a run in a real browser."""

import json
import random
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from autotuner.core import Candidate
from autotuner.report.page.run_page import MAX_BYTES, run_page
from autotuner.report.record import run_record
from autotuner.report.run_view import RunView
from autotuner.runs.trial_lines import trial_to_json
from autotuner.scoring.intervals import wilson_share
from autotuner.scoring.objective import Direction
from autotuner.scoring.pareto import AXES, frontier, pareto_points
from tests.hostile import HOSTILE_TEXTS
from tests.pages import make_run_folder

WIDTHS = [420, 1400]


@pytest.fixture
def run_page_opened(open_page, page_file):
    return open_page(page_file.as_uri())


def test_the_page_is_one_request_and_the_console_stays_empty(run_page_opened, page_file):
    run_page_opened.page.wait_for_timeout(300)
    assert run_page_opened.requests == [page_file.as_uri()]
    assert run_page_opened.complaints == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("address", ["", "#trial=2"])
def test_nothing_is_wider_than_the_window(open_page, page_file, width, address):
    assert not open_page(page_file.as_uri() + address, width=width).is_wider_than_window


def test_verdict_command_and_tables_are_there_without_scripts(open_page, page_file, run_folder):
    opened = open_page(page_file.as_uri(), java_script_enabled=False, wait=False)
    record = run_record(RunView.from_store(run_folder))
    text = opened.text
    assert f"Best of 9 candidates: trial {record['winner']}, feasible" in text
    assert "vllm serve tiny-model" in text
    assert "Scripts are blocked here" in text
    assert opened.page.locator("table.ranking tbody").count() == 9
    assert opened.complaints == []


def test_every_scenario_and_axis_can_be_drawn(run_page_opened):
    page = run_page_opened.page
    for name in ("scenario", "x-axis", "y-axis"):
        values = page.eval_on_selector_all(f"#{name} option", "options => options.map(option => option.value)")
        for value in values:
            page.select_option(f"#{name}", value)
            assert page.locator("#frontier-chart svg .mark").count() > 0
    assert run_page_opened.complaints == []


def test_the_frontier_drawn_is_that_of_the_scoring(run_page_opened, run_folder):
    view = RunView.from_store(run_folder)
    expected = {
        (point.trial.number, str(point.result.load_point))
        for point in pareto_points(view.pooled_trials, view.experiment, [AXES["interactivity"], AXES["throughput"]])
        if point.on_frontier
    }
    drawn = set()
    for scenario in range(2):
        run_page_opened.page.select_option("#scenario", str(scenario))
        indices = run_page_opened.page.get_attribute("#frontier", "data-frontier").split()
        drawn |= {
            tuple(each)
            for each in run_page_opened.evaluate(
                "indices => indices.map(index => [state.points[index].owner.trial, state.points[index].at])", indices
            )
        }
    assert drawn == expected
    assert len(drawn) > 1


def test_the_frontier_of_200_random_runs_is_that_of_the_scoring(run_page_opened):
    generator = random.Random(7)
    runs: list[tuple[list[list[float]], list[Direction]]] = []
    for _ in range(200):
        directions: list[Direction] = [generator.choice(["max", "min"]) for _ in range(2)]
        values = [generator.choice([1.0, 2.0, 2.5, 3.0, generator.uniform(0, 4)]) for _ in range(8)]
        points = [[generator.choice(values), generator.choice(values)] for _ in range(generator.randrange(0, 30))]
        runs.append((points, directions))
    drawn = run_page_opened.evaluate(
        "runs => runs.map(([points, directions]) =>"
        " frontierOf(points, directions.map(direction => direction === 'max' ? 1 : -1)))",
        runs,
    )
    assert drawn == [frontier(points, directions) for points, directions in runs]


def test_shares_have_the_intervals_of_the_scoring(run_page_opened):
    counts = [(0, 10, None), (10, 10, None), (7, 10, 4.0), (190, 200, 120.0), (1, 1, None)]
    drawn = run_page_opened.evaluate(
        "counts => counts.map(([good, n, size]) => wilson(good, n, size === null ? n : size))", counts
    )
    for (good, n, effective), share in zip(counts, drawn, strict=True):
        expected = wilson_share(good, n, effective)
        assert [share["value"], share["low"], share["high"]] == pytest.approx(
            [expected.value, expected.low, expected.high]
        )


def test_what_if_at_the_original_targets_gives_the_verdicts_of_the_run(run_page_opened):
    """With the slider moved away and back, and by counting the requests again where the page has all of them."""
    own = run_page_opened.evaluate("state.points.map(point => point.verdict)")
    page = run_page_opened.page
    page.fill("#what-if-tpot", "-60")
    assert "WHAT IF" in run_page_opened.text
    assert run_page_opened.evaluate("state.points.map(point => verdictAt(state.content, point, view.targets))") != own
    page.fill("#what-if-tpot", "0")
    assert "WHAT IF" not in run_page_opened.text
    assert run_page_opened.evaluate("state.points.map(point => verdictAt(state.content, point, view.targets))") == own
    recounted = run_page_opened.evaluate(
        """state.points.filter(point => state.content.requests[point.index].n <= 256 && point.trusted).map(point => {
             const share = attainmentAt(state.content, point, ownTargets(state.content));
             return [share.value, share.low, share.n, point.good, point.good_low, point.good_n];
        })"""
    )
    assert recounted
    for value, low, n, own_value, own_low, own_n in recounted:
        assert (value, low, n) == (pytest.approx(own_value), pytest.approx(own_low, abs=1e-4), own_n)


def test_the_keyboard_opens_a_point_and_escape_returns_to_it(run_page_opened):
    page = run_page_opened.page
    page.locator("#frontier-chart svg [tabindex]").first.focus()
    key = run_page_opened.evaluate("document.activeElement.dataset.key")
    page.keyboard.press("Enter")
    assert page.is_visible("#detail")
    assert run_page_opened.evaluate("document.activeElement.id") == "detail-title"
    assert "Server log, last lines" in page.inner_text("#detail")
    page.keyboard.press("Escape")
    assert page.is_hidden("#detail")
    assert run_page_opened.evaluate("document.activeElement.dataset.key") == key


def test_tab_alone_leads_from_the_top_to_the_details_of_a_candidate(run_page_opened):
    page = run_page_opened.page
    for _ in range(200):
        page.keyboard.press("Tab")
        if run_page_opened.evaluate("document.activeElement.dataset.key || ''").startswith("trial-"):
            break
    page.keyboard.press("Enter")
    assert page.is_visible("#detail")


def test_a_failed_launch_tells_its_failure_remedy_and_log(open_page, page_file):
    text = open_page(f"{page_file.as_uri()}#trial=9").page.inner_text("#detail")
    assert not re.search(r"null|undefined|NaN|\[object", text)
    assert "failed: crashed-under-load" in text
    assert "Free some memory." in text
    assert "INFO step 59" in text


def test_the_details_have_distributions_timeline_launches_and_checks(open_page, page_file, run_folder):
    winner = run_record(RunView.from_store(run_folder))["winner"]
    opened = open_page(f"{page_file.as_uri()}#trial={winner}")
    detail = opened.page.locator("#detail")
    assert detail.locator("svg").count() == 3
    assert detail.locator("rect.decoding").count() > 10
    text = detail.inner_text()
    assert not re.search(r"null|undefined|NaN|\[object", text)
    assert "validity checks passed" in text
    assert "confirmation" in text
    assert f"autotune command {run_folder.path.name} --trial {winner}" in text


def test_candidates_are_sorted_and_filtered(run_page_opened):
    page = run_page_opened.page
    page.click("[data-key='sort-trial']")
    numbers = page.eval_on_selector_all("table.ranking tbody a", "links => links.map(link => Number(link.textContent))")
    assert numbers == sorted(numbers)
    page.fill("#filter", "tp-size=2 feasible")
    shown = page.locator("table.ranking tbody:visible").all_inner_texts()
    assert shown
    assert all("tp-size=2" in text and "feasible" in text for text in shown)


def test_colours_can_be_hidden_from_the_charts(run_page_opened):
    page = run_page_opened.page
    before = page.locator("#frontier-chart .mark.s3").count()
    page.locator("#frontier-legend button").nth(2).press("Enter")
    assert before > 0
    assert page.locator("#frontier-chart .mark.s3").count() == 0
    assert run_page_opened.evaluate("document.activeElement.getAttribute('aria-pressed')") == "false"


def test_every_control_has_a_name_and_every_heading_follows_its_parent(run_page_opened):
    nameless = run_page_opened.evaluate(
        """Array.from(document.querySelectorAll("button, select, input, [role=button], [role=region]"))
             .filter(element => !(element.labels && element.labels.length) && !element.getAttribute("aria-label")
                                && !element.textContent.trim())
             .map(element => element.outerHTML)"""
    )
    assert nameless == []
    levels = run_page_opened.evaluate(
        "Array.from(document.querySelectorAll('h1,h2,h3')).map(e => Number(e.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_hostile_texts_stay_text(open_page, tmp_path, text):
    store = make_run_folder(tmp_path, candidates=3, text=text)
    (store.path / "report.html").write_text(run_page(store).html)
    for trial in (1, 3, 4):
        opened = open_page(f"{(store.path / 'report.html').as_uri()}#trial={trial}")
        opened.page.wait_for_timeout(50)
        assert opened.dialogs == []
        assert opened.complaints == []
        assert len(opened.requests) == 1
        assert opened.page.locator("img, iframe, object, embed, a:not([href^='#'])").count() == 0
        assert not opened.is_wider_than_window


def test_a_script_that_got_in_would_not_run(open_page, page_file, tmp_path):
    injected = page_file.read_text().replace(
        "<main>", "<main><script>window.injected = 1</script><img src=x onerror='window.injected = 2'>"
    )
    (tmp_path / "injected.html").write_text(injected)
    opened = open_page((tmp_path / "injected.html").as_uri())
    assert opened.evaluate("window.injected") is None
    assert any("Content Security Policy" in complaint for complaint in opened.complaints)


def test_the_page_prints_with_its_badge_legend_and_tables(run_page_opened):
    page = run_page_opened.page
    page.emulate_media(media="print")
    assert page.is_visible(".badge")
    assert page.is_visible("#frontier-legend")
    assert page.is_hidden(".controls")
    assert len(page.pdf()) > 20_000


def test_a_page_of_200_launches_is_within_its_budget_and_paints_soon(open_page, tmp_path):
    config = {"benchmark": {"traffic_scenarios": ["D(100,100)"], "num_concurrency": [1, 2, 4, 8, 16]}}
    store = make_run_folder(tmp_path, candidates=198, config=config)
    html = run_page(store).html
    assert len(html.encode()) <= MAX_BYTES
    (store.path / "report.html").write_text(html)
    opened = open_page((store.path / "report.html").as_uri())
    assert opened.page.locator("table.ranking tbody").count() == 199
    paint = opened.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert paint < 10_000  # under a second on an idle machine
    assert opened.complaints == []


def test_a_page_of_5000_load_points_is_within_its_budget(open_page, tmp_path):
    config = {"benchmark": {"traffic_scenarios": ["D(100,100)"], "num_concurrency": list(range(1, 26))}}
    store = make_run_folder(tmp_path, candidates=0, config=config)
    first = store.trials()[0]
    lines = []
    for number in range(1, 201):
        candidate = Candidate("vllm", {"tp-size": 1, "max-num-seqs": number})
        trial = replace(first, number=number, candidate=candidate, purpose="search")
        lines.append(json.dumps({"format": 1, **trial_to_json(trial)}))
    (store.path / "trials.jsonl").write_text("\n".join(lines) + "\n")
    page = run_page(store)
    assert len(page.content["points"]) == 5000
    assert len(page.html.encode()) <= MAX_BYTES
    (store.path / "report.html").write_text(page.html)
    opened = open_page((store.path / "report.html").as_uri())
    assert opened.complaints == []
    assert "leaves out" in opened.text
