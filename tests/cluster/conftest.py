"""A real control plane, where setup_cluster.py left its programs; without them the tests fail."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotuner.launchers.kubernetes import leftovers
from tests.cluster.control_plane import BENCHER, ControlPlane, control_plane
from tests.cluster.real_kubelet import kubelet
from tests.cluster.role import grant


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of setup_cluster.py."""
    home = os.environ.get("AUTOTUNE_TEST_CLUSTER")
    if not home or not (Path(home) / "bin" / "kube-apiserver").is_file():
        pytest.fail("AUTOTUNE_TEST_CLUSTER must name the folder that setup_cluster.py made; `nox -s cluster` sets it")
    return Path(home)


@pytest.fixture(scope="session")
def plane(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with two nodes of four GPUs each, whose pods run as processes; one user has the Role."""
    with control_plane(programs, tmp_path_factory.mktemp("control-plane") / "run") as running, kubelet(running):
        grant(running, "bencher")
        yield running


@pytest.fixture
def kubeconfig(plane: ControlPlane) -> str:
    """The kubeconfig of the user with the Role."""
    return str(plane.kubeconfig(BENCHER))


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where launches in this process note what is on the cluster."""
    folder = tmp_path / "notes"
    monkeypatch.setattr(leftovers, "notes_folder", lambda: folder)
    return folder
