"""Who owns what, and what is removed when the owner was killed."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from autotuner import owner
from autotuner.cli.leftovers import remove_half_written
from autotuner.core import Candidate, Measurement, Trial
from autotuner.launchers import gpu_locks, orphans
from autotuner.runs.store import RunStore

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


@pytest.fixture
def dead_owner(starts_processes):
    """An owner that has ended."""
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        start_time = owner.start_time(process.pid)
    return replace(owner.this_process(), pid=process.pid, start_time=start_time or "0")


def test_an_owner_survives_being_written_and_read():
    assert owner.parse(str(owner.this_process())) == owner.this_process()
    assert owner.parse("not an owner") is None
    assert owner.parse("a/b/c/d") is None


@pytest.mark.parametrize("pid", ["\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT ONE}", "9" * 5000, "0", "-1", ""])
def test_a_mark_that_anyone_may_have_set_is_no_owner_unless_it_names_a_process(pid):
    assert owner.parse(f"host/boot/{pid}/1") is None


def test_a_living_process_is_not_gone_and_a_dead_one_is(dead_owner):
    assert not owner.this_process().is_gone
    assert dead_owner.is_gone


def test_a_process_that_got_the_same_number_is_not_the_owner():
    assert replace(owner.this_process(), start_time="1").is_gone
    assert replace(owner.this_process(), boot_id="another").is_gone


def test_an_owner_on_another_machine_is_left_alone(dead_owner):
    assert not replace(dead_owner, host="elsewhere:pid").is_gone


@pytest.fixture
def isolated(tmp_path, monkeypatch):
    """Locks and working folders of this test alone, and no Docker."""
    monkeypatch.setattr(gpu_locks, "lock_folder", lambda: tmp_path / "gpus")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(orphans, "DOCKER_SOCKET", tmp_path / "no.sock")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    return tmp_path


def started_by(who):
    process = subprocess.Popen(SLEEP, env={**os.environ, owner.OWNER_VARIABLE: str(who)}, stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def test_a_process_of_a_dead_owner_is_killed_and_that_of_a_living_one_is_not(isolated, dead_owner):
    with started_by(dead_owner) as orphan, started_by(owner.this_process()) as live:
        try:
            removed = orphans.remove_orphans()
            assert ("process", str(orphan.pid)) in removed
            assert ("process", str(live.pid)) not in removed
            assert orphan.wait(10) == -signal.SIGKILL
            assert live.poll() is None
        finally:
            live.kill()


def test_a_working_folder_of_a_dead_process_is_removed(isolated, dead_owner):
    orphan, live = isolated / f"autotune-load-{dead_owner.pid}-x", isolated / f"autotune-load-{os.getpid()}-x"
    for folder in (orphan, live):
        folder.mkdir()
        (folder / "exchanges.spool").write_bytes(b"half")
    assert [item for item in orphans.remove_orphans() if item[0] == "folder"] == [("folder", str(orphan))]
    assert not orphan.exists()
    assert live.exists()


def test_a_lock_that_nobody_holds_is_removed(isolated):
    gpu_locks.lock_file(isolated / "gpus" / "GPU-0.lock").close()
    assert ("lock", "GPU-0.lock") in orphans.remove_orphans()
    assert ("lock", "GPU-0.lock") not in orphans.remove_orphans()


@pytest.fixture
def store(tmp_path):
    config = {
        "task_name": "t",
        "model": {"id_or_path": "m"},
        "base_runtime": "sim",
        "parameters": {},
        "benchmark": {"traffic_scenarios": ["D(10,10)"], "num_concurrency": [1]},
    }
    return RunStore.create(tmp_path / "runs", config, {})


def finish(store):
    number, folder = store.open_trial()
    (folder / "server.log").write_text("said")
    store.append(Trial(number, Candidate("sim"), Measurement("simulated", ()), time.time(), time.time()))


def test_what_an_interrupted_trial_left_is_removed_and_finished_ones_stay(store):
    finish(store)
    _, unfinished = store.open_trial()
    (unfinished / "records-1.npz.partial").write_bytes(b"x")
    complete = (store.path / "trials.jsonl").read_bytes()
    (store.path / "trials.jsonl").write_bytes(complete + b'{"number": 2, "cand')
    removed = dict(remove_half_written(store.path.parent))
    assert removed == {"folder": str(unfinished), "line": str(store.path / "trials.jsonl")}
    assert (store.path / "trials.jsonl").read_bytes() == complete
    assert [path.name for path in (store.path / "trials").iterdir()] == ["001"]
    assert list(remove_half_written(store.path.parent)) == []


def test_a_run_in_use_and_a_folder_that_is_none_are_left_alone(store, tmp_path):
    _, unfinished = store.open_trial()
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "runs" / "other" / "experiment.yaml").write_text("not: an experiment")
    with store.lock():
        assert list(remove_half_written(store.path.parent)) == []
    assert unfinished.exists()
    assert list(remove_half_written(Path("nowhere"))) == []
