"""A real Chromium, and pages of runs for it."""

from pathlib import Path

import pytest

from autotuner.report.page.run_page import run_page
from tests.browser.opened_page import OpenedPage
from tests.pages import make_run_folder

CHROMIUM = Path("/usr/bin/chromium")


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    if not CHROMIUM.exists():
        pytest.fail(f"{CHROMIUM} is missing: python tests/browser/setup_browser.py installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """Open an address in a fresh context; what it asks for, says and throws is kept."""
    contexts = []

    def opened(url, *, width=1400, wait=True, **options):
        context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        return OpenedPage.open(context, url, wait=wait)

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """A run with more load points than colours: 8 candidates of which one failed, two confirmations."""
    config = {"benchmark": {"traffic_scenarios": ["D(100,100)", "D(200,100)"], "num_concurrency": [2, 4, 16]}}
    return make_run_folder(tmp_path_factory.mktemp("runs"), candidates=8, config=config)


@pytest.fixture(scope="session")
def page_file(run_folder):
    """The page of that run as a file."""
    path = run_folder.path / "report.html"
    path.write_text(run_page(run_folder).html)
    return path
