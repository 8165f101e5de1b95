from pathlib import Path

import pytest


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The log of a trial's server, in the folder of a run."""
    folder = tmp_path / "a-run" / "trials" / "007"
    folder.mkdir(parents=True)
    return folder / "server.log"
