"""`autotune ui` as a user runs it."""

import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.pages import make_run_folder


def test_the_page_is_served_until_it_is_interrupted(finished_run, tmp_path, starts_processes):
    command = [str(Path(sys.executable).parent / "autotune"), "ui", str(next(finished_run.iterdir()))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            page = httpx.get(url, timeout=60)
            foreign = httpx.get(url, headers={"Host": "evil.invalid"}, timeout=60)
        finally:
            process.send_signal(signal.SIGINT)
        try:
            error = process.communicate(timeout=60)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert (page.status_code, foreign.status_code, process.returncode) == (200, 403, 0)
    assert "SIMULATED, NOT MEASURED" in page.text
    assert "on this machine only" in error


def test_no_run_is_an_error_that_says_what_to_do(autotune):
    ended = autotune("ui")
    assert ended.code == 3
    assert "There is no run under 'runs'" in ended.err


def test_a_load_test_is_not_served_as_the_page_of_a_run(autotune, tmp_path):
    store = make_run_folder(tmp_path, candidates=0)
    path = store.path / "experiment.yaml"
    path.write_text(f"kind: load-test\n{path.read_text()}")
    ended = autotune("ui", str(store.path))
    assert ended.code == 2
    assert "is a load test, which has no page" in " ".join(ended.err.split())
