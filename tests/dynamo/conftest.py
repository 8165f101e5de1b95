"""The real packages of Dynamo, where setup_dynamo.py left them; missing ones fail the tests."""

import os
from pathlib import Path

import pytest

from tests.dynamo.known_truth import write_real_profiles, write_word_model


@pytest.fixture(scope="session")
def dynamo() -> Path:
    """The folder with both environments."""
    value = os.environ.get("AUTOTUNE_TEST_DYNAMO")
    if not value or not Path(value).is_dir():
        pytest.fail("AUTOTUNE_TEST_DYNAMO must name the folder that tests/dynamo/setup_dynamo.py made; nox sets it")
    return Path(value)


@pytest.fixture(scope="session")
def real_profiles(dynamo, tmp_path_factory) -> dict[str, Path]:
    """The measured profiles inside the planner's package, one folder for each, in the form that planners read."""
    return write_real_profiles(dynamo, tmp_path_factory.mktemp("profiles"))


@pytest.fixture(scope="session")
def word_model(tmp_path_factory) -> Path:
    """A model folder without weights: the mocker needs only the tokenizer."""
    folder: Path = tmp_path_factory.mktemp("word-model")
    write_word_model(folder)
    return folder
