import pytest
from hypothesis import settings

# an example that takes long on a busy machine shows nothing wrong
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session", autouse=True)
def a_data_folder_of_its_own(tmp_path_factory):
    """No test reads or writes what was measured or calibrated on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOTUNE_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield
