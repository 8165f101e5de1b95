"""Fill the disk of a run at random instants, free it, resume, and count what was lost.

    unshare --map-root-user --mount python benchmarks/kill/full_disk.py

One round is a run of a few candidates on the simulated engine, in a small file system of its own:
a tmpfs, mounted where only this process and its children see it, gone with them. At a random
instant a file takes all of it but a few kilobytes. The tool must then end by itself, with exit
code 3 and an error that says that the disk is full. The file is removed, `autotune clean` runs,
what the kill campaign looks for is looked for, and the run is resumed until it is complete. In
half of the rounds temporary files are on the same file system.
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

from campaign import Round, Tally, table

SIZE = 256 * 2**20
"""Bytes of the file system; a run asks for 200 MB before it starts."""
MOST_LEFT = 64 * 2**10
ENDS_WITHIN = 60.0
STAGES = ("before the run folder", "no server", "server starting or stopping", "under load", "under load")
"""Where the run is a random second or less before its disk is full; by the clock alone few instants are under load."""


@dataclass
class FullTally(Tally):
    """What was seen over all instants, and how the tool ended."""

    ended: Counter[str] = field(default_factory=Counter)
    unsaid: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, repeated or left, no candidate was blamed, and every end was told."""
        return super().clean and not (self.unsaid or self.failed_by_kill)


class FullRound(Round):
    """One run in a small file system."""

    def __init__(self, folder: Path, draw: random.Random, tally: FullTally, trials: int) -> None:
        self.disk = folder / "runs"
        self.disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", self.disk], check=True)
        super().__init__(folder, draw, tally, trials)
        self.full = tally
        if draw.random() < 0.5:
            (self.disk / "tmp").mkdir()
            (folder / "tmp").rmdir()
            (folder / "tmp").symlink_to(self.disk / "tmp")

    def kill_once(self) -> bool:
        """Start or resume, fill the disk at a random instant, see the tool end, free it, check."""
        process = self.start()
        self.wait_for(self.draw.choice(STAGES), process)
        time.sleep(self.draw.uniform(0.0, 1.0))
        was_running = process.poll() is None
        at = self.stage()
        before = self.lines()
        filler = self.disk / "filler"
        self.fill(filler, self.draw.choice((0, self.draw.randrange(MOST_LEFT))))
        try:
            said = process.communicate(timeout=ENDS_WITHIN)[1].decode()
        except subprocess.TimeoutExpired:
            process.kill()
            said = process.communicate()[1].decode() + "(still running)"
        filler.unlink()
        if was_running:
            self.tally.kills["disk full"] += 1
            self.tally.at[at] += 1
            self.note(process.returncode, said)
        self.check(before)
        return was_running

    def wait_for(self, stage: str, process: subprocess.Popen[bytes]) -> None:
        """Wait until the run is there, or has ended."""
        while process.poll() is None and self.stage() != stage:
            time.sleep(0.02)

    def fill(self, path: Path, left: int) -> None:
        """Take all of the file system but `left` bytes."""
        with path.open("wb") as file:
            while (free := os.statvfs(self.disk).f_bavail * os.statvfs(self.disk).f_frsize - left) > 0:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, 2), max(4096, free // 2))
                except OSError:
                    return

    def note(self, code: int, said: str) -> None:
        """How the tool ended: complete, or with the disk named as the reason."""
        told = any(words in " ".join(said.split()) for words in ("disk", "No space left on device"))
        self.full.ended["run complete" if code == 0 else f"exit code {code}"] += 1
        if code != 0 and (code != 3 or not told or "Traceback" in said):
            self.full.unsaid.append(f"exit code {code}: {said[-2000:]}")

    def popen(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the tool, and keep what it says."""
        return self.started(*arguments, said=subprocess.PIPE)

    def close(self) -> None:
        """Take the file system away."""
        subprocess.run(["umount", self.disk], check=True)


def campaign(instants: int, seed: int, trials: int) -> FullTally:
    """Fill the disk at `instants` random instants, over as many runs as that takes."""
    draw, tally = random.Random(seed), FullTally()
    while tally.kills.total() < instants:
        with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
            this = FullRound(Path(folder), draw, tally, trials)
            try:
                this.play(instants - tally.kills.total())
                this.count_up()
            finally:
                this.close()
    return tally


def main() -> int:
    """Read the command line, run the campaign, print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instants", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=8)
    asked = parser.parse_args()
    began = time.monotonic()
    tally = campaign(asked.instants, asked.seed, asked.trials)
    print(table(tally))
    for how, count in sorted(tally.ended.items()):
        print(f"| ended with: {how} | {count} |")
    print(f"| ended without saying why | {len(tally.unsaid)} |")
    print(f"\n{time.monotonic() - began:.0f} s, seed {asked.seed}")
    for line in (*(f"left: {left}" for left in tally.left), *tally.unsaid):
        print(line)
    return 0 if tally.clean else 1


if __name__ == "__main__":
    sys.exit(main())
