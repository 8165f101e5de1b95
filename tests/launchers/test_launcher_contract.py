"""What holds for every launcher."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autotuner.core import Candidate, ServerSpec
from autotuner.endpoints.client import Client, NoAnswerError
from autotuner.endpoints.models import list_models
from autotuner.engines import LaunchContext, engine
from autotuner.errors import UsageError
from autotuner.evaluate.container_command import with_whole_command
from autotuner.experiment import IMAGE_MODES, Deployment, Model, Runtime
from autotuner.launchers import LAUNCHERS, launcher, ports, ready
from autotuner.launchers.kubernetes import leftovers
from tests.clusters import fake_cluster, write_kubeconfig
from tests.ome_controllers import makes_pod

MODEL = "llama-3.1-8b"
HERE = sorted(LAUNCHERS.keys() - {"docker"})
"""The launchers every machine has, clusters by a small API server; tests/docker holds containers to the same."""

ENDED = (0, 128 + 15)
"""Exit statuses of a server that was asked to stop: its own, or that of SIGTERM where it was not seen."""


@pytest.fixture
def deployment(tmp_path: Path, sim_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Deployment]]:
    """The deployment of each mode that works in a test."""
    monkeypatch.setattr(leftovers, "notes_folder", lambda: tmp_path / "notes")
    with fake_cluster() as cluster:
        cluster.controllers = {"inferenceservices": makes_pod(MODEL), "servingruntimes": lambda *_: None}
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", cluster.url)
        yield lambda mode: Deployment(mode=mode, url=sim_url, kubeconfig=str(kubeconfig))


def sim_spec(name: str) -> ServerSpec:
    is_container = name in IMAGE_MODES
    settings = {"image": "an/image:1", "executable": sys.executable} if is_container else {}
    runtime = Runtime(extra_args=("--load-seconds", "0"), **settings)
    context = LaunchContext(Model(id_or_path=MODEL), runtime, port=ports.free_port(), container=is_container)
    spec = engine("sim").server_spec(Candidate("sim"), context)
    return with_whole_command("sim", spec, MODEL) if name == "ome" else spec


def test_an_unknown_deployment_is_named_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'process'"):
        launcher("proces")


@pytest.mark.parametrize("name", HERE)
def test_a_server_answers_inside_its_block_and_only_the_starter_ends_it(
    name: str, log: Path, deployment: Callable[[str], Deployment]
) -> None:
    chosen, spec = launcher(name, deployment(name)), sim_spec(name)
    with chosen.launch(spec, log) as server:
        assert ready.wait_until_ready(server, ready_path="/health", model=MODEL, timeout=120).is_simulated
        assert server.exit_status() is None
    if chosen.starts_servers:
        assert server.exit_status() in ENDED
    with Client(server.url) as client:
        if chosen.starts_servers:
            with pytest.raises(NoAnswerError):
                list_models(client)
        else:
            assert list_models(client).names == (MODEL,)


@pytest.mark.parametrize("name", HERE)
def test_an_error_inside_the_block_still_cleans_up(
    name: str, log: Path, deployment: Callable[[str], Deployment]
) -> None:
    chosen, spec = launcher(name, deployment(name)), sim_spec(name)
    with pytest.raises(KeyboardInterrupt), chosen.launch(spec, log) as server:
        raise KeyboardInterrupt
    assert (server.exit_status() is not None) == chosen.starts_servers


def test_two_free_ports_are_free() -> None:
    for port in (ports.free_port(), ports.free_port()):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port))


def test_the_server_url_is_reached_past_a_proxy(sim_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with launcher("external", Deployment(mode="external", url=sim_url)).launch(None, Path("unused")) as server:
        ready.wait_until_ready(server, ready_path="/v1/models", model=MODEL, timeout=120)
