import sys
from pathlib import Path

import pytest

LOAD = Path(__file__).parents[2] / "benchmarks" / "load"


@pytest.fixture(autouse=True)
def benchmarks_on_the_path(monkeypatch):
    """They are scripts that import one another by name; what they imported is forgotten again."""
    imported_before = set(sys.modules)
    monkeypatch.syspath_prepend(str(LOAD))
    yield
    for name in set(sys.modules) - imported_before:
        if str(LOAD) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
