"""The servers that `nox -s gateways` set up, each started once, and load tests of them by the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gateways.bench_command import FEW_REQUESTS, LoadTestOutcome, run_autotune
from tests.gateways.gateway_servers import GatewayServers, is_loopback_only


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("gateways")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> GatewayServers:
    if not is_loopback_only():
        pytest.fail("these tests run where there is no network but loopback: `nox -s gateways`")
    return GatewayServers(
        home=_folder("AUTOTUNE_TEST_GATEWAYS"),
        vllm_environment=_folder("AUTOTUNE_TEST_VLLM"),
        vllm_model=_folder("AUTOTUNE_TEST_MODEL"),
        logs=tmp_path_factory.mktemp("servers"),
    )


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value or not Path(value).is_dir():
        pytest.fail(f"{variable} must name a folder; `nox -s gateways` makes and sets it")
    return Path(value)


@pytest.fixture(scope="session")
def vllm(servers: GatewayServers) -> Iterator[str]:
    with servers.vllm() as url:
        yield url


@pytest.fixture(scope="session")
def dynamo(servers: GatewayServers) -> Iterator[str]:
    with servers.dynamo() as url:
        yield url


@pytest.fixture(scope="session")
def litellm(servers: GatewayServers, vllm: str) -> Iterator[str]:
    with servers.litellm(vllm) as url:
        yield url


@pytest.fixture(scope="session")
def sglang_router(servers: GatewayServers, vllm: str) -> Iterator[str]:
    with servers.sglang_router(vllm) as url:
        yield url


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., LoadTestOutcome]:
    """Load-test a server with a few requests of 64 + 16 tokens, unless told otherwise."""

    def run(
        url: str, *arguments: str, scenario: str = "D(64,16)", env: dict[str, str] | None = None
    ) -> LoadTestOutcome:
        options = ("--json", "--scenario", scenario, *FEW_REQUESTS, *arguments)
        return run_autotune("bench", url, *options, folder=tmp_path, env=env)

    return run
