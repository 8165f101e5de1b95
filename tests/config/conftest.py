import pytest

from autotuner.config import catalog


@pytest.fixture(autouse=True)
def nothing_but_the_bundled_profiles(tmp_path, monkeypatch):
    """An empty current folder, an empty user folder, no registered profiles."""
    home = tmp_path / "home"
    here = tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("AUTOTUNE_CONFIG_HOME", str(home))
    monkeypatch.chdir(here)
    monkeypatch.setattr(catalog, "REGISTERED_PROFILES", {})


@pytest.fixture
def write():
    """Write a text below the current folder, making its folders."""
    from pathlib import Path

    def write(name, text):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write
