"""The page on which workers of a profile are picked, in a real browser."""

import json
import threading

import pytest

from autotuner.profiling.pick_server import PickServer
from autotuner.profiling.session import prepare, profile
from tests.profiling.points import sla_request

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A predicted profile in a folder with a hostile name."""
    path = tmp_path_factory.mktemp("picks") / HOSTILE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autotuner.profiling.pictures.draw_pictures", lambda outcome: [])
        profile(prepare(sla_request(rate=30.0, ttft=0.02, itl=0.008)), path, accept_nearest=True)
    return path


@pytest.fixture
def server(folder):
    with PickServer(folder) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield running
        running.stop()
        thread.join()
    (folder / "picked.json").unlink(missing_ok=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 1400])
def test_the_page_fits_asks_only_its_server_and_shows_text_as_text(open_page, server, width, scheme):
    opened = open_page(server.url, width=width, color_scheme=scheme)
    assert not opened.is_wider_than_window
    opened.page.locator("#pick").click()
    assert HOSTILE in opened.page.inner_text("#confirm")
    assert opened.page.locator("img").count() == 0
    assert opened.complaints == []
    assert opened.dialogs == []
    assert {url.split("?")[0] for url in opened.requests} == {server.url}


def test_a_click_shows_a_pair_and_its_manifest_and_picks_nothing(open_page, server, folder):
    opened = open_page(server.url)
    opened.page.locator("[data-key='decode-row-1']").click()
    opened.wait_until("document.querySelector('#pair td:nth-child(2)') !== null && asked === 1")
    row = opened.evaluate("content.decode[1]")
    opened.wait_until(f"document.querySelector('#pair').innerText.includes('{row['requests']}')")
    assert "DynamoGraphDeployment" in opened.page.inner_text("#pair pre")
    with opened.page.expect_download() as download:
        opened.page.locator("#download").click()
    assert "DynamoGraphDeployment" in download.value.path().read_text()
    assert not (folder / "picked.json").exists()


def test_a_pick_needs_a_confirmation_and_is_reached_by_keyboard(open_page, server, folder):
    opened = open_page(server.url)
    page = opened.page
    page.locator("[data-key='decode workers-1']").focus()
    page.keyboard.press("Enter")
    opened.wait_until("selected.decode !== 0")
    page.locator("#pick").press("Enter")
    page.keyboard.press("Escape")
    opened.wait_until("document.querySelector('#confirm') === null")
    assert not (folder / "picked.json").exists()
    page.locator("#pick").press("Enter")
    page.locator("#confirm-pick").press("Enter")
    opened.wait_until("document.querySelector('#picked').textContent.startsWith('Picked at')")
    picked = json.loads((folder / "picked.json").read_text())
    wanted = opened.evaluate("content.decode[selected.decode]")
    assert (picked["decode"]["mapping"], picked["decode"]["requests"]) == (wanted["name"], wanted["requests"])
    assert opened.complaints == []


def test_without_scripts_the_tables_and_the_chosen_manifest_are_there(open_page, server):
    text = open_page(server.url, wait=False, java_script_enabled=False).text
    assert "nothing can be picked" in text
    assert "output tokens/s/GPU" in text
    assert "DynamoGraphDeployment" in text
