"""The launcher's contract on a real Docker Engine."""

import contextlib
import os
import threading
import time
from pathlib import Path

import httpx
import pytest

from autotuner import owner
from autotuner.core import FailureKind, Mount
from autotuner.engines import engine
from autotuner.engines.protocol import Phase
from autotuner.errors import ConfigError, MachineError
from autotuner.experiment import Experiment
from autotuner.launchers import LAUNCHERS, ServerExitedError, containers, launcher, ready
from autotuner.launchers.docker import DockerLauncher
from autotuner.run_setup import RunSetup

SERVE = """
import http.server, signal, sys
signal.signal(signal.SIGTERM, lambda *_: (print("asked to stop", flush=True), sys.exit(0)))
print("up", flush=True)
http.server.HTTPServer(("0.0.0.0", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


@pytest.fixture
def log(tmp_path):
    folder = tmp_path / "a-run" / "trials" / "007"
    folder.mkdir(parents=True)
    return folder / "server.log"


def until(condition, seconds=30.0):
    """Wait until `condition` gives something, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return value


def status_of(server):
    return until(lambda: None if server.exit_status() is None else (server.exit_status(),))[0]


def answers(url):
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, trust_env=False).status_code
    return None


def test_it_is_registered_by_the_name_of_its_deployment():
    assert isinstance(launcher("docker"), DockerLauncher)
    assert "docker" in LAUNCHERS


def test_a_server_runs_answers_and_is_gone_afterwards(spec, log, client):
    server_spec = spec(SERVE)
    with DockerLauncher().launch(server_spec, log) as server:
        assert until(lambda: answers(server.url)) == 200
        assert server.exit_status() is None
        assert len(client.containers.list(filters={"label": containers.OWNER_LABEL})) == 1
    assert "up" in log.read_text()
    assert "asked to stop" in log.read_text()
    assert answers(server.url) is None


def test_labels_name_run_trial_and_owner(spec, log, client):
    with DockerLauncher(grace=0).launch(spec(DEAF), log):
        (container,) = client.containers.list(all=True, filters={"label": f"{containers.TRIAL_LABEL}=007"})
        assert container.labels[containers.RUN_LABEL] == str(log.parents[2])
        started_by = owner.parse(container.labels[containers.OWNER_LABEL])
        assert started_by == owner.this_process()
        assert not started_by.is_gone


def test_the_port_is_published_on_this_machine_only(spec, log, client):
    server_spec = spec(SERVE)
    with DockerLauncher().launch(server_spec, log) as server:
        until(lambda: answers(server.url))
        (container,) = client.containers.list(filters={"label": containers.OWNER_LABEL})
        published = container.attrs["NetworkSettings"]["Ports"][f"{server_spec.port}/tcp"]
        assert [binding["HostIp"] for binding in published] == ["127.0.0.1"]


def test_on_the_hosts_network_nothing_is_published(spec, log, client):
    with DockerLauncher().launch(spec(SERVE, network="host"), log) as server:
        assert until(lambda: answers(server.url)) == 200
        (container,) = client.containers.list(filters={"label": containers.OWNER_LABEL})
        assert container.attrs["HostConfig"]["NetworkMode"] == "host"
        assert not container.attrs["NetworkSettings"]["Ports"]


def test_shared_memory_is_the_hosts_unless_a_size_is_given(spec, log, client):
    with DockerLauncher(grace=0).launch(spec(DEAF), log):
        (container,) = client.containers.list(filters={"label": containers.OWNER_LABEL})
        assert container.attrs["HostConfig"]["IpcMode"] == "host"
    with DockerLauncher(grace=0).launch(spec(DEAF, shm_size="64m"), log):
        (container,) = client.containers.list(filters={"label": containers.OWNER_LABEL})
        assert container.attrs["HostConfig"]["ShmSize"] == 64 * 2**20
        assert container.attrs["HostConfig"]["IpcMode"] != "host"


def test_gpus_are_asked_for_by_index():
    from autotuner.core import ServerSpec

    server_spec = ServerSpec("i", (), {}, (), 1, "/", "m", gpus=2, devices=(1, 3))
    (request,) = containers.create_arguments(server_spec)["device_requests"]
    assert request["DeviceIDs"] == ["1", "3"]
    assert request["Capabilities"] == [["gpu"]]
    (any_two,) = containers.create_arguments(ServerSpec("i", (), {}, (), 1, "/", "m", gpus=2))["device_requests"]
    assert any_two["Count"] == 2


def test_mounts_environment_and_secrets_reach_the_container(spec, log, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_from_here")
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "word").write_text("mounted")
    code = (
        "import os; print(os.environ['PLAIN'], len(os.environ['HF_TOKEN']), open('/seen/word').read())\n"
        "open('/seen/new', 'w')"
    )
    server_spec = spec(code, env={"PLAIN": "a b"}, secrets=("HF_TOKEN",), mounts=(Mount(f"{tmp_path}/given", "/seen"),))
    with DockerLauncher().launch(server_spec, log) as server:
        assert status_of(server) == 1
    assert "a b 12 mounted" in log.read_text()
    assert "Read-only file system" in log.read_text()
    assert "hf_from_here" not in log.read_text()


def test_the_entry_point_can_be_replaced(spec, log):
    server_spec = spec(entrypoint="/bin/echo", container_argv=("in", "place"))
    with DockerLauncher().launch(server_spec, log) as server:
        assert status_of(server) == 0
    assert "in place" in log.read_text()


def test_the_log_begins_with_the_image_and_its_digest(spec, log, client):
    with DockerLauncher().launch(spec("pass"), log) as server:
        status_of(server)
    digest = client.images.get(spec().image).id
    info = engine("vllm").diagnosis.server_info(log.read_text())
    assert info == {"image": spec().image, "image_digest": digest}


def test_every_byte_is_in_the_log_before_the_end_is_told(spec, log):
    with DockerLauncher().launch(spec("print('x' * 300_000); print('last', flush=True)"), log) as server:
        assert status_of(server) == 0
        text = log.read_text()
    assert text.count("x") == 300_000
    assert text.endswith("last\n")


def test_an_end_before_readiness_is_seen_at_once(spec, log):
    with DockerLauncher().launch(spec("raise SystemExit(3)"), log) as server:
        with pytest.raises(ServerExitedError) as ended:
            ready.wait_until_ready(server, ready_path="/health", model="m", timeout=300)
    assert ended.value.exit_status == 3


def test_a_container_that_is_killed_has_ended_by_that_signal(spec, log, client):
    with DockerLauncher().launch(spec(DEAF), log) as server:
        until(lambda: "deaf" in log.read_text())
        (container,) = client.containers.list(filters={"label": containers.OWNER_LABEL})
        container.kill()
        assert status_of(server) == 137


def test_a_container_killed_for_memory_says_so_in_both_phases(spec, log):
    hungry = "x = []\nwhile True: x.append(bytearray(1 << 20))"
    with DockerLauncher().launch(spec(hungry, memory="32m", shm_size="16m"), log) as server:
        status = status_of(server)
    assert status == 137
    phases: tuple[tuple[Phase, FailureKind], ...] = (
        ("start", FailureKind.OUT_OF_MEMORY_AT_START),
        ("load", FailureKind.OUT_OF_MEMORY_UNDER_LOAD),
    )
    for phase, kind in phases:
        failure = engine("vllm").diagnosis.failure(log.read_text(), status, phase)
        assert failure.kind is kind
        assert "OOMKilled" in failure.message


def test_a_container_that_somebody_removes_has_ended(spec, log, client):
    with DockerLauncher().launch(spec(DEAF), log) as server:
        (container,) = client.containers.list(filters={"label": containers.OWNER_LABEL})
        container.remove(force=True)
        assert status_of(server) == 137


def test_one_that_does_not_listen_to_sigterm_is_killed_after_the_grace(spec, log):
    with DockerLauncher(grace=1).launch(spec(DEAF), log) as server:
        until(lambda: "deaf" in log.read_text())
    assert server.exit_status() == 137


def test_lines_of_the_two_outputs_do_not_mix(spec, log):
    code = (
        "import sys\n"
        "for i in range(200):\n"
        "    for out in (sys.stdout, sys.stderr):\n"
        "        for piece in ('<', out.name, str(i), '>\\n'): out.write(piece); out.flush()\n"
        "sys.stdout.write('no end of line')"
    )
    with DockerLauncher().launch(spec(code), log) as server:
        assert status_of(server) == 0
    _, *lines = log.read_text().splitlines()
    expected = [f"<{name}{i}>" for i in range(200) for name in ("<stderr>", "<stdout>")]
    assert sorted(lines) == sorted([*expected, "no end of line"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_it_is_gone_when_the_block_raises(spec, log, client, error):
    with pytest.raises(error):
        with DockerLauncher(grace=0).launch(spec(DEAF), log):
            raise error
    assert client.containers.list(all=True, filters={"label": containers.OWNER_LABEL}) == []


def test_a_command_that_is_not_in_the_image_is_a_missing_engine(spec, log):
    with DockerLauncher().launch(spec(container_argv=("no-such-engine", "serve")), log) as server:
        status = server.exit_status()
    failure = engine("vllm").diagnosis.failure(log.read_text(), status, "start")
    assert failure.kind is FailureKind.ENGINE_MISSING
    assert "no-such-engine" in failure.message


def test_a_port_that_is_taken_is_named(spec, log):
    first_spec = spec(SERVE)
    with DockerLauncher(grace=0).launch(first_spec, log) as first:
        until(lambda: answers(first.url))
        second_log = log.with_name("second.log")
        with DockerLauncher().launch(spec(SERVE, port=first_spec.port), second_log) as server:
            status = server.exit_status()
    failure = engine("vllm").diagnosis.failure(second_log.read_text(), status, "start")
    assert failure.kind is FailureKind.PORT_IN_USE


def test_gpus_that_docker_cannot_give_are_a_driver_fault(spec, log):
    which = {"devices": (99,)} if Path("/dev/nvidiactl").exists() else {}
    server_spec = spec(SERVE, gpus=1, **which)
    with DockerLauncher().launch(server_spec, log) as server:
        status = server.exit_status()
    failure = engine("vllm").diagnosis.failure(log.read_text(), status, "start")
    assert failure.kind is FailureKind.DRIVER_FAULT


def experiment(image, **runtime):
    return Experiment.model_validate(
        {
            "task_name": "t",
            "model": {"id_or_path": "llama-3.1-8b"},
            "base_runtime": "sim",
            "runtime": {"image": image, **runtime},
            "deployment": {"mode": "docker"},
            "parameters": {"tp-size": [1]},
            "benchmark": {"traffic_scenarios": ["D(100,100)"], "num_concurrency": [1]},
        }
    )


def preflight(subject):
    DockerLauncher().preflight(subject, engine("sim").help_spec(subject.runtime))


def test_an_image_that_cannot_be_had_is_refused_before_the_first_launch():
    with pytest.raises(MachineError, match=r"image 'localhost:1/nobody/nothing:0' is not here and cannot be pulled"):
        preflight(experiment("localhost:1/nobody/nothing:0"))


def test_a_mount_that_is_not_there_is_refused_before_the_first_launch(spec, tmp_path):
    wrong = experiment(spec().image, mounts=[f"{tmp_path}/nothing:/x"])
    with pytest.raises(ConfigError, match="nothing' to mount"):
        RunSetup.from_experiment(wrong)


def test_without_a_daemon_the_error_says_what_to_do(spec, log, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(MachineError, match="No Docker daemon answers"):
        with DockerLauncher().launch(spec(), log):
            pass


def test_a_daemon_that_goes_away_ends_the_run_and_not_the_trial(spec, log, client):
    """The daemon as the launcher sees it: a relay on a port of its own that is cut."""
    relay = Relay(client.api.base_url)
    os.environ["DOCKER_HOST"] = f"tcp://127.0.0.1:{relay.port}"
    try:
        with DockerLauncher().launch(spec(DEAF), log) as server:
            until(lambda: "deaf" in log.read_text())
            relay.cut()
            with pytest.raises(MachineError, match="went away"):
                until(lambda: server.exit_status() is not None)
    finally:
        del os.environ["DOCKER_HOST"]
        relay.cut()
    (leftover,) = client.containers.list(all=True, filters={"label": containers.OWNER_LABEL})
    leftover.remove(force=True)


class Relay:
    """Hands bytes on between a TCP port and the daemon's socket until it is cut."""

    def __init__(self, base_url):
        import socket

        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.ends = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        import socket

        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect("/var/run/docker.sock")
                self.ends += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    def _copy(self, source, target):
        import socket

        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut(self):
        import socket

        for end in (self.listener, *self.ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
