"""Fill the disk of a run at random times, free it, resume, and count what was lost.

    unshare --map-root-user --mount python benchmarks/kill/full_disk.py

A run of a few candidates on the simulated engine has its own small file system: a tmpfs, mounted in
a namespace of this process and its children. At a random time a file fills all of it but a few
kilobytes. The tool must then exit by itself, with code 3 and an error that says that the disk is
full. The file is removed, `autotune clean` runs, the checks of the kill campaign are made, and the
run is resumed until it is complete. In half of the runs temporary files are on the same file system.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from campaign import KilledRun, Tally, table

DISK_BYTES = 256 * 2**20
"""Bytes of the file system; a run asks for 200 MB before it starts."""
MAX_FREE_BYTES = 64 * 2**10
EXIT_TIMEOUT_SECONDS = 60.0
STAGES = ("before the run folder", "no server", "server starting or stopping", "under load", "under load")
"""Stages to wait for before the disk is filled within a second; random times alone would seldom be under load."""


@dataclass
class FullDiskTally(Tally):
    """Counts over all full disks, and how the tool exited."""

    exits: Counter[str] = field(default_factory=Counter)
    unexplained_exits: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, repeated or left, no candidate was blamed, and every exit named the disk."""
        return super().is_clean and not (self.unexplained_exits or self.failed_by_kill)


class FullDiskRun(KilledRun):
    """One run in a small file system."""

    def __init__(self, folder: Path, rng: random.Random, tally: FullDiskTally, trials: int) -> None:
        self.disk = folder / "runs"
        self.disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", self.disk], check=True)
        super().__init__(folder, rng, tally, trials)
        self.disk_tally = tally
        if rng.random() < 0.5:
            (self.disk / "tmp").mkdir()
            (folder / "tmp").rmdir()
            (folder / "tmp").symlink_to(self.disk / "tmp")

    def kill_once(self) -> bool:
        """Start or resume, fill the disk at a random time, wait for the tool to exit, free the disk and check."""
        process = self.start()
        self.wait_for(self.rng.choice(STAGES), process)
        time.sleep(self.rng.uniform(0.0, 1.0))
        was_running = process.poll() is None
        stage = self.stage()
        before = self.trial_lines()
        filler = self.disk / "filler"
        self.fill(filler, self.rng.choice((0, self.rng.randrange(MAX_FREE_BYTES))))
        try:
            errors = process.communicate(timeout=EXIT_TIMEOUT_SECONDS)[1].decode()
        except subprocess.TimeoutExpired:
            process.kill()
            errors = process.communicate()[1].decode() + "(still running)"
        filler.unlink()
        if was_running:
            self.tally.kills["disk full"] += 1
            self.tally.stages[stage] += 1
            self.record_exit(process.returncode, errors)
        self.check(before)
        return was_running

    def wait_for(self, stage: str, process: subprocess.Popen[bytes]) -> None:
        """Wait until the run is in a stage, or has ended."""
        while process.poll() is None and self.stage() != stage:
            time.sleep(0.02)

    def fill(self, path: Path, free_bytes: int) -> None:
        """Fill the file system but for `free_bytes`."""
        with path.open("wb") as file:
            while (excess := os.statvfs(self.disk).f_bavail * os.statvfs(self.disk).f_frsize - free_bytes) > 0:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, 2), max(4096, excess // 2))
                except OSError:
                    return

    def record_exit(self, code: int, errors: str) -> None:
        """Count the exit code, and keep the errors of an exit that does not name the disk as the reason."""
        names_disk = any(words in " ".join(errors.split()) for words in ("disk", "No space left on device"))
        self.disk_tally.exits["run complete" if code == 0 else f"exit code {code}"] += 1
        if code != 0 and (code != 3 or not names_disk or "Traceback" in errors):
            self.disk_tally.unexplained_exits.append(f"exit code {code}: {errors[-2000:]}")

    def start_tool(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the tool, and capture its stderr."""
        return self.start_process(*arguments, stderr=subprocess.PIPE)

    def close(self) -> None:
        """Unmount the file system."""
        subprocess.run(["umount", self.disk], check=True)


def campaign(instants: int, seed: int, trials: int) -> FullDiskTally:
    """Fill the disk at `instants` random times, over as many runs as that takes."""
    rng, tally = random.Random(seed), FullDiskTally()
    while tally.kills.total() < instants:
        with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
            run = FullDiskRun(Path(folder), rng, tally, trials)
            try:
                run.kill_repeatedly(instants - tally.kills.total())
                run.finish_and_count()
            finally:
                run.close()
    return tally


def main() -> int:
    """Read the command line, run the campaign, print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instants", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=8)
    options = parser.parse_args()
    start_time = time.monotonic()
    tally = campaign(options.instants, options.seed, options.trials)
    print(table(tally))
    for reason, count in sorted(tally.exits.items()):
        print(f"| ended with: {reason} | {count} |")
    print(f"| ended without saying why | {len(tally.unexplained_exits)} |")
    print(f"\n{time.monotonic() - start_time:.0f} s, seed {options.seed}")
    for line in (*(f"left: {leftover}" for leftover in tally.leftovers), *tally.unexplained_exits):
        print(line)
    return 0 if tally.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
