import pytest
from hypothesis import settings

from autotuner.scoring import validity

# an example that takes long on a busy machine shows nothing wrong
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session", autouse=True)
def a_data_folder_of_its_own(tmp_path_factory):
    """No test reads or writes what was measured or calibrated on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOTUNE_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture
def on_a_busy_machine(monkeypatch):
    """A load test is valid however late other tests make its client: those checks have tests of their own."""
    monkeypatch.setattr(validity, "MAX_CLIENT_DELAY_SECONDS", 10)
    monkeypatch.setattr(validity, "MAX_CLIENT_SECONDS", 10)
    monkeypatch.setattr(validity, "MAX_CLIENT_CPU", 10)
    monkeypatch.setattr(validity, "MAX_LATENCY_CHANGE", 10)
