"""Where an engine runs when nobody says it, which GPUs it would find, and what is refused before the first launch."""

import socket
import sys
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException

from autotuner import machine
from autotuner.engines import engine
from autotuner.errors import ConfigError, MachineError
from autotuner.experiment import Benchmark, Experiment, Model, Runtime
from autotuner.launchers import launcher
from autotuner.launchers.gpus import GpuInventory, InstalledGpu
from autotuner.machine import LocalMachine


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch, tmp_path):
    """No Docker, no engines, no GPUs."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(machine, "DOCKER_SOCKET", tmp_path / "docker.sock")
    monkeypatch.setattr(machine, "query_inventory", lambda: GpuInventory(()))


@pytest.fixture
def engines(tmp_path):
    """Put executables of these names on the PATH."""

    def install(*names):
        (tmp_path / "bin").mkdir()
        for name in names:
            (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
            (tmp_path / "bin" / name).chmod(0o755)

    return install


@pytest.fixture
def daemon(monkeypatch, tmp_path):
    """A Docker daemon that answers."""
    (tmp_path / "docker.sock").touch()

    class Client:
        def close(self):
            pass

    monkeypatch.setattr(docker, "from_env", lambda timeout: Client())


REAL = pytest.mark.parametrize(
    ("runtime", "executable"), [("vllm", "vllm"), ("sglang", "sglang"), ("trtllm", "trtllm-serve")]
)


def chosen_deployment(runtime: str, executable: str | None = None) -> tuple[str, str]:
    chosen = LocalMachine().deployment(runtime, executable)
    assert chosen is not None
    return chosen


@REAL
def test_a_docker_daemon_that_answers_is_preferred(daemon, engines, runtime, executable):
    engines(executable)
    mode, why = chosen_deployment(runtime)
    assert mode == "docker"
    assert why.startswith("a Docker daemon answers at ")


@REAL
def test_without_docker_an_engine_that_is_installed_runs_as_a_process(engines, runtime, executable, tmp_path):
    engines(executable)
    mode, why = chosen_deployment(runtime)
    assert mode == "process"
    assert (
        why
        == f"no Docker daemon at {tmp_path / 'docker.sock'}, and {runtime} is installed ({tmp_path}/bin/{executable})"
    )


@REAL
def test_without_either_it_is_a_process_whose_start_will_say_what_is_missing(runtime, executable, tmp_path):
    assert LocalMachine().deployment(runtime, None) == (
        "process",
        f"no Docker daemon at {tmp_path / 'docker.sock'}, and {runtime} is not installed",
    )


def test_an_executable_that_is_named_and_here_is_a_process_even_beside_docker(daemon, engines, tmp_path):
    engines("my-vllm")
    path = str(tmp_path / "bin" / "my-vllm")
    assert LocalMachine().deployment("vllm", path) == ("process", f"runtime.executable {path} is on this machine")
    assert chosen_deployment("vllm", "/in/the/image/vllm")[0] == "docker"


@pytest.mark.parametrize("runtime", ["sim", "openai", "vlm"])
def test_there_is_nothing_to_choose_for_an_engine_that_is_not_started_on_gpus(daemon, runtime):
    assert LocalMachine().deployment(runtime, None) is None


def test_without_a_socket_the_docker_sdk_is_not_touched(monkeypatch):
    monkeypatch.setitem(sys.modules, "docker", None)
    assert chosen_deployment("vllm")[0] == "process"


def test_a_daemon_that_refuses_is_none(monkeypatch, tmp_path):
    (tmp_path / "docker.sock").touch()

    def refuse(timeout):
        raise DockerException("permission denied")

    monkeypatch.setattr(docker, "from_env", refuse)
    assert chosen_deployment("vllm")[1].startswith("no Docker daemon answers at ")


def test_a_daemon_that_never_answers_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "DOCKER_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/silent")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        mode, why = chosen_deployment("vllm")
    assert (mode, why.partition(",")[0]) == ("process", f"no Docker daemon answers at unix://{tmp_path}/silent")


def test_docker_is_looked_for_once(monkeypatch, tmp_path):
    (tmp_path / "docker.sock").touch()
    calls = []

    def refuse(timeout):
        calls.append(timeout)
        raise DockerException("permission denied")

    monkeypatch.setattr(docker, "from_env", refuse)
    here = LocalMachine()
    assert here.deployment("vllm", None) != here.deployment("sglang", None)
    assert len(calls) == 1


def gpu(index, name):
    return InstalledGpu(index, name, f"GPU-{index}", 80 << 30, 79 << 30)


@pytest.mark.parametrize(
    ("names", "indexes", "expected"),
    [
        (["H100", "H100", "H100"], (), ("H100", 3)),
        (["H100", "H100", "L4"], (), (None, 3)),
        (["H100", "H100", "L4"], (0, 1), ("H100", 2)),
        (["H100", "H100", "L4"], (2,), ("L4", 1)),
        (["H100"], (7,), (None, None)),
        ([], (), (None, None)),
    ],
)
def test_the_gpus_are_those_that_may_be_used_with_the_type_they_share(monkeypatch, names, indexes, expected):
    present = tuple(gpu(index, name) for index, name in enumerate(names))
    monkeypatch.setattr(machine, "query_inventory", lambda: GpuInventory(present))
    assert LocalMachine().gpus("vllm", "process", indexes) == expected


@pytest.mark.parametrize(("runtime", "deployment"), [("sim", "process"), ("vllm", "external"), ("openai", "external")])
def test_what_computes_elsewhere_finds_no_gpus_here(monkeypatch, runtime, deployment):
    monkeypatch.setattr(machine, "query_inventory", lambda: pytest.fail("the driver is not asked"))
    assert LocalMachine().gpus(runtime, deployment, ()) == (None, None)


def experiment(model: str, runtime: Runtime, **parameters: object) -> Experiment:
    return Experiment(
        task_name="t",
        model=Model(id_or_path=model),
        base_runtime="vllm",
        runtime=runtime,
        parameters=parameters,
        benchmark=Benchmark(traffic_scenarios=("D(8,8)",), num_concurrency=(1,)),
    )


@pytest.mark.processes
def test_a_missing_engine_is_an_error_of_the_machine_and_a_wrong_flag_one_of_the_configuration(tmp_path: Path) -> None:
    fake = tmp_path / "vllm"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    vllm, here = engine("vllm"), Runtime(executable=str(fake))
    with pytest.raises(MachineError, match="not installed"):
        machine.preflight(experiment("org/model", Runtime(executable="/no/vllm")), vllm, launcher("process"))
    with pytest.raises(ConfigError, match="max-num-seqs"):
        machine.check_engine_flags(experiment("org/model", here, **{"max-num-seq": 4}), vllm)
    subject = experiment("org/model", here, **{"tp-size": 1})
    machine.check_engine_flags(subject, vllm)
    machine.preflight(subject, vllm, launcher("process"))
