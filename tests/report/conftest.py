"""Runs made of request records, through the scoring that real runs go through."""

import pytest

from tests.factories import Run


@pytest.fixture(scope="session")
def make_run():
    return Run
