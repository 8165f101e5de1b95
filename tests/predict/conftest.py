import pytest


@pytest.fixture(autouse=True)
def no_own_data(monkeypatch, tmp_path):
    """Predictions that nothing learnt on this machine takes part in."""
    monkeypatch.setenv("AUTOTUNE_DATA_HOME", str(tmp_path / "data"))
