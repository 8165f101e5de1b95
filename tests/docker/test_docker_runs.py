"""The whole job in containers: runs, printed commands, and what a killed run leaves."""

import contextlib
import json
import os
import signal
import subprocess
import time

import pytest
import yaml

from autotuner.endpoints.client import Client, NoAnswerError
from autotuner.endpoints.models import list_models
from autotuner.launchers import containers
from tests.docker.run_in_step import RunInStep

IMAGE = os.environ.get("AUTOTUNE_TEST_IMAGE", "autotune-test/base:1")
JUDGED = (0, 1)
"""A machine that is busy with other tests may leave two seconds of load without a verdict."""


def trials(folder):
    (run,) = (folder / "runs").iterdir()
    return [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]


def running(client):
    return client.containers.list(filters={"label": containers.OWNER_LABEL})


def until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return value


def test_quick_test_runs_with_the_simulated_engine_in_a_container(autotune, sim, tmp_path, client):
    result = autotune("run", *sim, "--json")
    assert result.returncode in JUDGED, result.stderr
    (trial,) = trials(tmp_path)
    assert trial["measurement"]["failure"] is None
    assert trial["measurement"]["source"] == "simulated"
    info = trial["measurement"]["server"]
    assert info["image_digest"] == client.images.get(info["image"]).id
    (script,) = (tmp_path / "runs").glob("*/trials/001/command.sh")
    assert "docker run" in script.read_text()


def test_a_flag_the_image_does_not_know_is_refused_before_the_first_launch(autotune, sim, tmp_path):
    result = autotune("run", *sim, "--set", "parameters.max-runing-requests=[8]")
    assert result.returncode == 2
    assert "did you mean 'max-running-requests'" in " ".join(result.stderr.split())
    assert not (tmp_path / "runs").exists()


def test_a_flag_only_the_image_knows_is_accepted_when_the_image_is_here(autotune, tmp_path):
    """An engine whose --help names a flag that no bundled table has."""
    tool = tmp_path / "tool"
    tool.mkdir()
    (tool / "vllm").write_text("#!/bin/sh\necho '  --host HOST'\necho '  --port PORT'\necho '  --brand-new-flag N'\n")
    (tool / "vllm").chmod(0o755)
    settings = {"image": IMAGE, "executable": "/tool/vllm", "mounts": [f"{tool}:/tool"]}
    (tmp_path / "new.yaml").write_text(yaml.safe_dump({"runtime": settings, "parameters": {"brand-new-flag": [1, 2]}}))
    arguments = ("run", "--runtime", "vllm", "--deployment", "docker", "--model", "some/model", "--dry-run")
    shown = autotune(*arguments, "--override-mode", "patch", "-c", str(tmp_path / "new.yaml"), *ONLY_THAT)
    assert shown.returncode == 0, shown.stderr
    assert "brand-new-flag" in shown.stdout


ONLY_THAT = tuple(
    word
    for name in ("tp-size", "mem-fraction-static", "enable-chunked-prefill")
    for word in ("--set", f"parameters.{name}=null")
)


def test_the_flags_of_an_image_are_asked_for_once(autotune, sim):
    first = autotune("run", *sim)
    second = autotune("run", *sim)
    assert "for its flags" in first.stderr
    assert "for its flags" not in second.stderr


def test_a_missing_image_ends_the_run_before_the_first_launch(autotune, sim, tmp_path):
    result = autotune("run", *sim, "--set", "runtime.image=localhost:1/nobody/nothing:0")
    assert result.returncode == 3
    assert "is not here and cannot be pulled" in " ".join(result.stderr.split())
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def printed(autotune, sim, tmp_path):
    """What `autotune command` prints for a run's only trial, and the trial's spec."""
    result = autotune("run", *sim)
    assert result.returncode in JUDGED, result.stderr
    (trial,) = trials(tmp_path)
    spec = trial["measurement"]["spec"]

    def command(form):
        result = autotune("command", "--trial", "1", "--format", form, "--port", str(spec["port"]))
        assert result.returncode == 0, result.stderr
        return result.stdout

    return command, spec


def test_the_printed_docker_command_starts_the_same_server(printed, client):
    command, spec = printed
    process = subprocess.Popen(["sh", "-c", f"exec {command('docker')}"])
    try:
        serves(spec, client)
    finally:
        process.terminate()
        assert process.wait(30) is not None


def test_the_printed_compose_file_starts_the_same_server(printed, tmp_path, client):
    command, spec = printed
    (tmp_path / "compose.yaml").write_text(command("compose"))
    compose = ["docker", "compose"] if has_plugin() else ["docker-compose"]
    file = [*compose, "-p", f"autotune-test-{os.getpid()}", "-f", str(tmp_path / "compose.yaml")]
    try:
        subprocess.run([*file, "up", "-d"], check=True, capture_output=True)
        serves(spec, client)
    finally:
        subprocess.run([*file, "down", "-t", "1"], check=True, capture_output=True)


def has_plugin():
    return subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0


def serves(spec, client):
    """The server answers, and its container runs the command that was measured."""
    url = f"http://127.0.0.1:{spec['port']}"
    models = until(lambda: served_models(url))
    assert spec["served_model"] in models.names
    (container,) = (c for c in client.containers.list() if str(spec["port"]) in c.attrs["Args"])
    words = [container.attrs["Path"], *container.attrs["Args"]]
    assert words == [spec["entrypoint"], *spec["container_argv"]]


def served_models(url):
    with contextlib.suppress(NoAnswerError), Client(url) as client:
        return list_models(client)
    return None


def test_a_killed_run_leaves_a_container_that_clean_removes_and_the_run_goes_on(autotune, sim, tmp_path, client):
    killed = RunInStep(tmp_path, *sim, "--max-iterations", "2")
    killed.wait_for("[2/2] load point 1 of 1")
    killed.kill()
    assert len(running(client)) == 1
    result = autotune("clean")
    assert result.returncode == 0, result.stderr
    assert "removed container autotune-" in result.stdout
    assert "removed folder" in result.stdout
    assert running(client) == []
    assert "Nothing was left behind" in autotune("clean").stdout
    (run,) = (tmp_path / "runs").iterdir()
    resumed = autotune("run", "--resume", str(run))
    assert resumed.returncode in JUDGED, resumed.stderr
    assert [trial["number"] for trial in trials(tmp_path)] == [1, 2]
    assert "[1/2] starting" not in resumed.stderr


def test_the_next_run_removes_what_a_killed_one_left(autotune, sim, tmp_path, client):
    killed = RunInStep(tmp_path, *sim)
    killed.wait_for("ready")
    killed.kill()
    (leftover,) = running(client)
    (run,) = (tmp_path / "runs").iterdir()
    assert autotune("run", "--resume", str(run)).returncode in JUDGED
    assert leftover.id not in [container.id for container in client.containers.list(all=True)]


def test_clean_leaves_a_living_run_alone(autotune, sim, tmp_path, client):
    living = RunInStep(tmp_path, *sim, "--duration", "300")
    living.wait_for("ready")
    assert "Nothing was left behind" in autotune("clean").stdout
    assert len(running(client)) == 1
    living.process.send_signal(signal.SIGINT)
    exit_code, rest = living.end()
    assert exit_code == 130, rest


def test_a_secret_reaches_the_container_and_no_file(autotune, sim, tmp_path):
    secret = "hf_VerySecretValue42"
    result = autotune("run", *sim, HF_TOKEN=secret)
    assert result.returncode in JUDGED, result.stderr
    assert secret not in result.stdout + result.stderr
    shown = [autotune("command", "--trial", "1", "--format", form).stdout for form in ("shell", "docker", "compose")]
    assert all("HF_TOKEN" in text and secret not in text for text in shown)
    for path in (tmp_path / "runs").rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


@pytest.fixture
def vllm(tmp_path):
    """Arguments of a short run with the real vLLM for CPU in a container."""
    home = os.environ["AUTOTUNE_TEST_VLLM"]
    base = subprocess.run(
        [f"{home}/bin/python", "-c", "import sys; print(sys.base_prefix)"], capture_output=True, text=True, check=True
    ).stdout.strip()
    settings = {
        "runtime": {
            "image": IMAGE,
            "executable": f"{home}/bin/vllm",
            "mounts": [f"{path}:{path}" for path in (base, home)],
            "env": {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "0", "HF_HUB_OFFLINE": "1"},
            "extra_args": ["--enforce-eager"],
        },
        "parameters": {"max-num-seqs": [16], "enable-chunked-prefill": None},
    }
    (tmp_path / "vllm.yaml").write_text(yaml.safe_dump(settings))
    return (
        *("--profile", "quick-test", "--runtime", "vllm", "--deployment", "docker", "--total-gpus", "1"),
        *("--model", os.environ["AUTOTUNE_TEST_MODEL"], "-c", str(tmp_path / "vllm.yaml")),
        *("--scenario", "D(50,20)", "--concurrency", "2", "--warmup", "1", "--max-iterations", "1"),
    )


@pytest.mark.engine
def test_quick_test_runs_with_the_real_vllm_in_a_container(autotune, vllm, tmp_path):
    result = autotune("run", *vllm, "--duration", "4")
    assert result.returncode in JUDGED, result.stderr
    (trial,) = trials(tmp_path)
    assert trial["measurement"]["failure"] is None
    assert trial["measurement"]["source"] == "measured"
    assert trial["measurement"]["server"]["kv_tokens"] > 0
    assert trial["measurement"]["server"]["version"] == "0.32.0"
    (point,) = trial["measurement"]["load_points"]
    assert point["metrics"]["requests"] > 0
    assert point["metrics"]["errors"] == {}


@pytest.mark.engine
def test_a_vllm_container_that_is_killed_under_load_has_crashed(autotune, vllm, tmp_path, client):
    run = RunInStep(tmp_path, *vllm, "--duration", "60")
    run.wait_for("load point 1 of 1")
    (container,) = running(client)
    container.kill()
    run.end()
    (trial,) = trials(tmp_path)
    assert trial["measurement"]["failure"]["kind"] == "crashed-under-load"
    assert "SIGKILL" in trial["measurement"]["failure"]["message"]
