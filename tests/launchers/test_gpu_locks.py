"""GPUs that two runs never share, on machines whose GPUs are written down here."""

import os
import subprocess
import sys
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.errors import ConfigError, MachineError
from autotuner.launchers.gpu_locks import LockHeldError, lock_file, remove_stale_locks, reserve_gpus
from autotuner.launchers.gpus import GpuInventory, InstalledGpu

GIB = 2**30


def machine(count, busy=(), distances=None):
    gpus = tuple(
        InstalledGpu(index, "a GPU", f"GPU-{index}", 80 * GIB, (10 if index in busy else 79) * GIB)
        for index in range(count)
    )
    return lambda: GpuInventory(gpus, "1.0", distances=distances or {})


@pytest.fixture(autouse=True)
def _every_gpu_is_visible(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_as_many_as_needed_are_held_until_the_block_ends(tmp_path):
    with reserve_gpus(2, locks=tmp_path, query=machine(4)) as first:
        with reserve_gpus(2, locks=tmp_path, query=machine(4)) as second:
            assert not set(first) & set(second)
        with reserve_gpus(2, locks=tmp_path, query=machine(4)) as again:
            assert not set(first) & set(again)


def test_too_few_free_ones_is_an_error_that_says_who_holds_the_others(tmp_path):
    with reserve_gpus(3, locks=tmp_path, query=machine(4)):
        with pytest.raises(MachineError, match=r"2 GPUs are needed and 1 of 4 are free.*held by another autotune"):
            with reserve_gpus(2, locks=tmp_path, query=machine(4)):
                pass
        with reserve_gpus(1, locks=tmp_path, query=machine(4)):
            pass


def test_a_gpu_in_use_by_another_program_is_not_chosen(tmp_path):
    with reserve_gpus(2, locks=tmp_path, query=machine(4, busy=(0, 2))) as chosen:
        assert set(chosen) == {1, 3}
    with pytest.raises(MachineError, match="GPU 0 has 70 GiB in use by another program"):
        with reserve_gpus(3, locks=tmp_path, query=machine(4, busy=(0, 2))):
            pass


def test_named_gpus_are_taken_all_and_only_they(tmp_path):
    with reserve_gpus(1, (3, 1), locks=tmp_path, query=machine(4, busy=(1,))) as chosen:
        assert set(chosen) == {1, 3}
        with pytest.raises(MachineError, match="GPU 3 is held"):
            with reserve_gpus(1, (3,), locks=tmp_path, query=machine(4)):
                pass


def test_a_gpu_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"There is no GPU 4\. This machine has 4, counted from 0"):
        with reserve_gpus(1, (4,), locks=tmp_path, query=machine(4)):
            pass


def test_the_users_own_limit_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-3")
    with reserve_gpus(2, locks=tmp_path, query=machine(4)) as chosen:
        assert set(chosen) == {2, 3}


@pytest.mark.parametrize("count", [0, 2])
def test_without_gpus_nothing_is_held(tmp_path, count):
    with reserve_gpus(count, locks=tmp_path, query=machine(0)) as chosen:
        assert chosen == ()
    assert list(tmp_path.iterdir()) == []


def test_the_best_connected_ones_come_first(tmp_path):
    pairs = {(0, 1): 50, (0, 2): 50, (0, 3): 0, (1, 2): 0, (1, 3): 50, (2, 3): 50}
    with reserve_gpus(2, locks=tmp_path, query=machine(4, distances=pairs)) as chosen:
        assert set(chosen) == {0, 3}
        with reserve_gpus(2, locks=tmp_path, query=machine(4, distances=pairs)) as others:
            assert set(others) == {1, 2}


@given(
    st.sets(st.integers(0, 7), min_size=2),
    st.dictionaries(st.tuples(st.integers(0, 7), st.integers(0, 7)), st.integers(0, 60)),
)
def test_an_order_has_every_gpu_once_and_begins_with_the_closest_pair(indexes, distances):
    ordered = {(min(pair), max(pair)): distance for pair, distance in distances.items()}
    inventory = GpuInventory((), distances=ordered)
    near = inventory.closest_first(indexes)
    assert sorted(near) == sorted(indexes)
    closest = min(inventory.distance(one, other) for one in indexes for other in indexes if one < other)
    assert inventory.distance(*near[:2]) == closest


HOLD = """
import sys
from pathlib import Path
from autotuner.launchers.gpu_locks import lock_file
held = lock_file(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.processes
def test_a_lock_ends_with_its_process_however_that_ends(tmp_path):
    lock = tmp_path / "gpus" / "GPU-0.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockHeldError, match=f"process {holder.pid}"):
            lock_file(lock)
        assert remove_stale_locks(lock.parent) == []
        holder.kill()
        holder.wait()
    assert remove_stale_locks(lock.parent) == ["GPU-0.lock"]
    lock_file(lock).close()


def test_many_at_once_never_share(tmp_path):
    with ExitStack() as all_of_them:
        taken = [
            index
            for _ in range(8)
            for index in all_of_them.enter_context(reserve_gpus(1, locks=tmp_path, query=machine(8)))
        ]
        assert sorted(taken) == list(range(8))


@pytest.mark.parametrize("kind", ["link to a file", "folder"])
def test_what_another_user_put_in_place_of_a_lock_is_neither_followed_nor_emptied(tmp_path, kind):
    victim, lock = tmp_path / "victim", tmp_path / "locks" / "GPU-0.lock"
    victim.write_text("kept")
    lock.parent.mkdir(mode=0o700)
    lock.symlink_to(victim) if kind == "link to a file" else lock.mkdir()
    with pytest.raises(MachineError, match="no lock that autotune made"):
        lock_file(lock)
    assert remove_stale_locks(lock.parent) == []
    assert victim.read_text() == "kept"


def test_a_folder_of_locks_that_others_may_write_is_refused(tmp_path):
    folder = tmp_path / "locks"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(MachineError, match="may be written by other users"):
        lock_file(folder / "GPU-0.lock")
    assert remove_stale_locks(folder) == []


def test_a_folder_of_locks_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "locks").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineError, match="is not a folder"):
        lock_file(tmp_path / "locks" / "GPU-0.lock")


def test_a_folder_of_locks_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(MachineError, match="belongs to the user with the number"):
        lock_file(tmp_path / "locks" / "GPU-0.lock")
