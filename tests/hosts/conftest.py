"""A real Slurm on loopback, started once; no test leaves a job in its queue, and its node takes jobs again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts import slurm_cluster
from tests.hosts.slurm_cluster import SlurmCluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("hosts")


@pytest.fixture
def slurm() -> Iterator[SlurmCluster]:
    with slurm_cluster.shared() as cluster:
        try:
            yield cluster
            cluster.wait_for_end_of_jobs()
            assert cluster.active_jobs() == []
        finally:
            cluster.restore()
