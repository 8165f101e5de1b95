"""The page of a run that goes on, in a real browser."""

import shutil
import threading
from dataclasses import replace

import pytest

from autotuner.report.page.run_page import run_page
from autotuner.report.page.server import PageServer
from tests.pages import make_run_folder, run_trials, write_trial

TEXT = "Array.from(document.querySelectorAll('#head, main, #foot')).map(each => each.textContent).join('|')"


@pytest.fixture
def serve_page():
    running = []

    def serve(store):
        server = PageServer(store)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        running.append((server, thread))
        return server

    yield serve
    for server, thread in running:
        server.stop()
        thread.join()
        server.server_close()


def test_the_page_follows_a_run_and_ends_as_the_static_one(open_page, serve_page, tmp_path):
    store = make_run_folder(tmp_path, candidates=0, finished=False)
    (store.path / "trials.jsonl").write_text("")
    server = serve_page(store)
    opened = open_page(server.url)
    assert "No launch has finished yet" in opened.text
    for count, trial in enumerate(run_trials(store.experiment, 6), start=1):
        shutil.rmtree(store.path / "trials" / f"{trial.number:03d}", ignore_errors=True)
        write_trial(store, trial)
        opened.wait_until(f"state.content.candidates.flatMap(each => each.launches).length === {count}")
    store.save_search("every candidate was tried", [], 6)
    opened.wait_until("state.content.state === 'finished'")
    static = run_page(store).html
    (store.path / "report.html").write_text(static)
    assert opened.evaluate(TEXT) == open_page((store.path / "report.html").as_uri()).evaluate(TEXT)
    assert opened.complaints == []
    assert {url.split("?")[0] for url in opened.requests} == {server.url, f"{server.url}events"}


def test_news_keep_the_focus_the_choices_and_the_open_details(open_page, serve_page, tmp_path):
    store = make_run_folder(tmp_path, candidates=3, finished=False)
    opened = open_page(serve_page(store).url)
    page = opened.page
    page.select_option("#x-axis", "ttft")
    page.fill("#filter", "tp-size")
    page.locator("[data-key='trial-2']").press("Enter")
    page.locator("[data-key='detail-load']").focus()
    more = run_trials(store.experiment, 6)[5]
    write_trial(store, replace(more, number=20))
    opened.wait_until("state.content.candidates.some(each => each.trial === 20)")
    assert page.input_value("#x-axis") == "ttft"
    assert page.input_value("#filter") == "tp-size"
    assert page.is_visible("#detail")
    assert opened.evaluate("document.activeElement.dataset.key") == "detail-load"
    assert opened.complaints == []


def test_launches_that_the_page_does_not_hold_are_fetched(open_page, serve_page, tmp_path):
    store = make_run_folder(tmp_path, candidates=3)
    opened = open_page(serve_page(store).url)
    opened.evaluate("state.content.launches = {}")
    opened.page.locator("[data-key='trial-2']").press("Enter")
    opened.page.wait_for_selector("#detail details summary", timeout=60_000)
    text = opened.page.inner_text("#detail")
    assert "validity checks" in text
    assert "INFO step 0" in text


def test_the_page_outlives_its_server(open_page, serve_page, tmp_path):
    store = make_run_folder(tmp_path, candidates=2)
    server = serve_page(store)
    opened = open_page(server.url)
    server.stop()
    server.server_close()
    opened.wait_until("document.getElementById('live-status').textContent.startsWith('not live')")
    opened.page.locator("[data-key='trial-2']").press("Enter")
    assert opened.page.is_visible("#detail")


def test_hostile_texts_of_news_stay_text(open_page, serve_page, tmp_path):
    text = "</script><img src=x onerror=alert(1)><a href=javascript:alert(2)>"
    store = make_run_folder(tmp_path, candidates=2, finished=False, text=text)
    opened = open_page(serve_page(store).url)
    store.save_search(text, [], 2)
    opened.wait_until("state.content.state === 'finished'")
    assert text in opened.text
    assert opened.dialogs == []
    assert opened.page.locator("img, a:not([href^='#'])").count() == 0
