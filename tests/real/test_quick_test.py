"""The main job on a real vLLM, from the command line to the command it prints."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autotuner.engines import engine
from autotuner.launchers import ready
from autotuner.launchers.ports import free_port
from tests.real.short_load import SHORT_WINDOWS

pytestmark = pytest.mark.engine

COMMAND = str(Path(sys.executable).parent / "autotune")


def test_quick_test_ends_with_a_ranking_a_picture_and_a_command_that_starts_the_same_server(
    vllm: Path, tiny_model: Path, processes: Callable[[], dict[int, str]], tmp_path: Path
) -> None:
    arguments = ["--profile", "quick-test", "--runtime", "vllm", "--deployment", "process", "--model", str(tiny_model)]
    eager = ["--set", "parameters.cuda-graph=[false]", "--set", f"runtime.executable={vllm}"]
    result = subprocess.run(
        [COMMAND, "run", *arguments, *eager, *SHORT_WINDOWS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert result.returncode == 0, result.stderr
    assert "measured" in result.stdout
    assert "simulated" not in result.stdout.lower()
    assert processes() == {}

    run = next((tmp_path / "runs").iterdir())
    assert (run / "pareto.png").read_bytes().startswith(b"\x89PNG")
    trials = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    assert [trial["measurement"]["failure"] for trial in trials] == [None, None]
    assert [trial["measurement"]["server"]["version"] for trial in trials] == ["0.32.0", "0.32.0"]

    printed = (run / "best" / "command.sh").read_text()
    assert printed in result.stdout
    port = str(free_port())
    elsewhere = subprocess.run(
        [COMMAND, "command", "--port", port], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert elsewhere == printed.replace("--port 8000", f"--port {port}")
    assert_serves(elsewhere, str(tiny_model), tmp_path)


def assert_serves(command: str, model: str, folder: Path) -> None:
    """Paste the command into a shell, and have the server give a token of the model."""
    port = shlex.split(command)[shlex.split(command).index("--port") + 1]
    with (folder / "pasted.log").open("wb") as log:
        shell = subprocess.Popen(["bash", "-c", command], cwd=folder, stdout=log, stderr=log, start_new_session=True)

    class Pasted:
        url = f"http://127.0.0.1:{port}"

        def exit_status(self) -> int | None:
            return shell.poll()

    try:
        ready.wait_until_ready(Pasted(), ready_path="/health", model=model, timeout=300)
        assert engine("vllm").diagnosis.server_info((folder / "pasted.log").read_text())["version"] == "0.32.0"
    finally:
        os.killpg(shell.pid, signal.SIGTERM)
        shell.wait(60)
