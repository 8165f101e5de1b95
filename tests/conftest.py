import importlib
import json
import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import settings

from autotuner.scoring import validity
from tests import forked_workers
from tests.guard import guarded
from tests.servers import SIMULATED_MODEL, ScriptedResponses, Server, response_server, scripted_server, simulated_engine

# hundreds of processes import the package, which takes twice as long where each of them compiles it again
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# an example that takes long on a busy machine shows nothing wrong; the same examples every time, so that a change is
# judged by what it changed: random ones are tried by `nox -s fuzz`, and here with `--hypothesis-profile random`
settings.register_profile("fixed", deadline=None, derandomize=True, database=None)
settings.register_profile("random", deadline=None)
settings.load_profile("fixed")


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Each worker of a whole run imports a share of the test modules first, so that only one compiles each of them."""
    root = session.config.rootpath
    worker_input = getattr(session.config, "workerinput", None)
    if worker_input is None or [Path(argument).resolve() for argument in session.config.args] != [root / "tests"]:
        return
    share = slice(int(worker_input["workerid"].removeprefix("gw")), None, worker_input["workercount"])
    for path in sorted((root / "tests").rglob("test_*.py"))[share]:
        with suppress(Exception, pytest.skip.Exception):  # collection imports it again, and reports the error
            importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with guarded(item):
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "starts_processes" in getattr(item, "fixturenames", ()):
            item.add_marker("processes")


@pytest.fixture(scope="session")
def starts_processes() -> None:
    """A fixture that starts processes asks for this one, which marks the tests that use it `processes`."""


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


@pytest.fixture
def forked_load_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load workers start at once, forked from one process that has imported what they run."""
    monkeypatch.setattr("autotuner.load.worker_process.start_process", forked_workers.start_process)


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and load tests without plots, which take longer to draw than a short load to measure."""
    monkeypatch.setattr("autotuner.report.bench.folder.draw", lambda bench, folder: None)
    monkeypatch.setattr("autotuner.report.plots.draw_pareto", lambda view, path: None)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers with scripted behaviour; they end with the test."""
    with ExitStack() as servers:
        yield lambda *behave, **options: servers.enter_context(scripted_server(*behave, **options))


@pytest.fixture
def serve_responses() -> Iterator[Callable[[ScriptedResponses], str]]:
    """Serve responses over HTTP until the test ends; returns the URL."""
    with ExitStack() as servers:
        yield lambda responses: servers.enter_context(response_server(responses))


@pytest.fixture
def sim_url(tmp_path_factory: pytest.TempPathFactory, starts_processes: None) -> Iterator[str]:
    """A simulated engine that autotune did not start."""
    with simulated_engine(tmp_path_factory.mktemp("external")) as url:
        yield url


@pytest.fixture
def tiny_url(tmp_path_factory: pytest.TempPathFactory, starts_processes: None) -> Iterator[str]:
    """The same with a model whose vocabulary is 512."""
    folder = tmp_path_factory.mktemp("tiny")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 512,
        "max_position_embeddings": 2048,
    }
    (folder / "config.json").write_text(json.dumps(config))
    with simulated_engine(folder, "--model", str(folder), "--served-model-name", SIMULATED_MODEL) as url:
        yield url
