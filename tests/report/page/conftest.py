"""A run folder with records and logs, made once from the factories of results."""

import pytest

from tests.pages import make_run_folder


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """A small run that finished, in a folder of its own: three candidates, two loads, one failure."""
    return make_run_folder(tmp_path_factory.mktemp("runs"))
