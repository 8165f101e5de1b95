"""What happens when the Docker daemon itself is killed: a daemon of this test's own, with the image in it."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import docker
import pytest

from autotuner.launchers import containers
from tests.docker.run_in_step import RunInStep

IMAGE = os.environ.get("AUTOTUNE_TEST_IMAGE", "autotune-test/base:1")
DOCKERD = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or "dockerd"


BRIDGE = "autotune-test0"
"""A bridge of its own: a daemon without one would delete the bridge of the daemon that runs already."""


class Daemon:
    """A dockerd with its own files and socket; containers it starts need the host's network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/docker.sock"

    def start(self) -> None:
        (self.folder / "docker.pid").unlink(missing_ok=True)
        options = {"data-root": "data", "exec-root": "exec", "pidfile": "docker.pid"}
        places = [f"--{name}={self.folder / place}" for name, place in options.items()]
        with (self.folder / "dockerd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [DOCKERD, *places, "--host", self.url, "--bridge", BRIDGE, "--iptables=false", "--ip-masq=false"],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "dockerd.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def answers(self) -> bool:
        return subprocess.run(["docker", "--host", self.url, "version"], capture_output=True).returncode == 0

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture
def daemon(tmp_path_factory, client):
    # a socket's path may have 108 characters at most
    folder = Path("/tmp") / f"autotune-test-daemon-{os.getpid()}"
    folder.mkdir()
    daemon = Daemon(folder)
    network = client.networks.create(BRIDGE, options={"com.docker.network.bridge.name": BRIDGE})
    try:
        daemon.start()
        with contextlib.closing(docker.DockerClient(daemon.url)) as inside:
            inside.images.load(client.images.get(IMAGE).save(named=IMAGE))
        yield daemon
        daemon.stop()
    finally:
        daemon.process.kill()
        daemon.process.wait()
        network.remove()
        for line in Path("/proc/mounts").read_text().splitlines():
            if line.split()[1].startswith(str(folder)):
                subprocess.run(["umount", "--lazy", line.split()[1]], check=True)
        shutil.rmtree(folder)


def test_a_daemon_that_is_killed_ends_the_run_and_loses_no_finished_trial(daemon, autotune, sim, tmp_path):
    arguments = (*sim, "--max-iterations", "2", "--set", "runtime.network=host")
    run_in_step = RunInStep(tmp_path, *arguments, env={"DOCKER_HOST": daemon.url})
    run_in_step.wait_for("[2/2] ready")
    daemon.process.kill()
    daemon.process.wait()
    exit_code, rest = run_in_step.end()
    assert exit_code == 3, rest
    assert "The Docker daemon went away during a trial" in " ".join(rest.split())
    (run,) = (tmp_path / "runs").iterdir()
    before = (run / "trials.jsonl").read_text()
    assert [json.loads(line)["number"] for line in before.splitlines()] == [1]

    daemon.start()
    resumed = autotune("run", "--resume", str(run), DOCKER_HOST=daemon.url)
    assert resumed.returncode in (0, 1), resumed.stderr
    after = (run / "trials.jsonl").read_text()
    assert after.startswith(before)
    assert [json.loads(line)["number"] for line in after.splitlines()] == [1, 2]
    with contextlib.closing(docker.DockerClient(daemon.url)) as inside:
        assert inside.containers.list(all=True, filters={"label": containers.OWNER_LABEL}) == []
