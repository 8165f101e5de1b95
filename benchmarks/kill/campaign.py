"""Kill the tool or its server at random instants of a run, resume, and count what was lost: `python campaign.py`.

One round is a run of a few candidates on the simulated engine, killed again and again until it is
complete: each time the tool (its server's keeper must end the server) or the server (the trial
must fail, and the run go on) gets SIGKILL at a random instant. After each kill `autotune clean`
runs, and then nothing may be left: no process, no working folder of the load generator, no trial
that is half there. Trials that were finished before a kill must be there after it, byte for byte.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

COMMAND = Path(sys.executable).parent / "autotune"
SETTINGS = (
    *("--profile", "quick-test", "--runtime", "sim", "--duration", "0.3", "--warmup", "0.1", "--concurrency", "4"),
    *("--set", "runtime.extra_args=[--load-seconds, '0']", "--scenario", "D(20,5)"),
    *("--set", "parameters.max-running-requests=[8, 16, 32, 64]", "--set", "parameters.tp-size=[1]"),
    *("--set", "parameters.mem-fraction-static=[0.9]", "--set", "parameters.enable-chunked-prefill=[true, false]"),
)
MARK = "AUTOTUNE_CAMPAIGN"
"""The variable by which every process of a round is found again."""

Victim = Literal["tool", "server", "keeper"]
"""The keeper is the parent that ends a server when the tool goes away."""
GONE_WITHIN = 15.0
"""Seconds a keeper may take to end a server that was asked politely first."""


@dataclass
class Tally:
    """What was seen over all kills."""

    kills: Counter[str] = field(default_factory=Counter)
    at: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    failed_by_kill: int = 0
    lost: int = 0
    repeated: int = 0
    left: list[str] = field(default_factory=list)
    removed: Counter[str] = field(default_factory=Counter)

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, repeated or left behind."""
        return not (self.lost or self.repeated or self.left)


class Round:
    """One run in a folder of its own, and everything it starts."""

    def __init__(self, folder: Path, draw: random.Random, tally: Tally, trials: int) -> None:
        self.folder = folder
        self.draw = draw
        self.tally = tally
        self.trials = trials
        self.mark = f"{os.getpid()}-{folder.name}"
        temporary = folder / "tmp"
        temporary.mkdir()
        self.environment = {**os.environ, MARK: self.mark, "TMPDIR": str(temporary), "XDG_CACHE_HOME": str(folder)}

    def play(self, kills: int) -> int:
        """Kill at most `kills` times until the run is complete; how often it was."""
        for count in range(kills):
            if not self.kill_once():
                return count
        self.finish()
        return kills

    def kill_once(self) -> bool:
        """Start or resume, kill at a random instant, clean, check; False when the run was complete before."""
        process = self.start()
        victim: Victim = self.draw.choice(("tool", "tool", "server", "keeper"))
        time.sleep(self.draw.uniform(0.0, 3.0))
        was_running = process.poll() is None
        self.tally.at[self.stage()] += was_running
        if victim != "tool" and (found := list(self.kept(victim))):
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            # the tool may notice, or not get to it
            time.sleep(self.draw.choice((0.0, self.draw.uniform(0.0, 2.0))))
            self.tally.kills[f"{victim}, then tool"] += was_running
        else:
            self.tally.kills["tool"] += was_running
        before = self.lines()
        process.kill()
        process.wait()
        self.check(before)
        return was_running

    def start(self) -> subprocess.Popen[bytes]:
        """The run, or what is left of it."""
        found = self.run_folder()
        more = ("--resume", str(found)) if found else (*SETTINGS, "--max-iterations", str(self.trials))
        return self.popen("run", *more)

    def finish(self) -> None:
        """Let the run go on to its end, and check that all of it is there."""
        before = self.lines()
        self.start().communicate()
        self.check(before)

    def check(self, before: list[bytes]) -> None:
        """Clean as a user would, then look for what was lost, repeated or left."""
        said = subprocess.run(
            [str(COMMAND), "clean"], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=True
        ).stdout
        for line in said.splitlines():
            if line.startswith("removed "):
                self.tally.removed[line.split()[1]] += 1
        after = self.lines()
        self.tally.lost += sum(line not in after for line in before)
        numbers = [line.partition(b'"number":')[2].partition(b",")[0] for line in after]
        self.tally.repeated += len(numbers) - len(set(numbers))
        candidates = [line.partition(b'"candidate":')[2].partition(b',"measurement"')[0] for line in after]
        self.tally.repeated += len(candidates) - len(set(candidates))
        self.tally.left += self.leftovers(len(after))

    def leftovers(self, finished: int) -> list[str]:
        """Processes of this round, working folders, and trial folders without a trial."""
        deadline = time.monotonic() + GONE_WITHIN
        while (alive := list(self.marked())) and time.monotonic() < deadline:
            time.sleep(0.05)
        found = [f"process {pid}" for pid in alive]
        found += [f"folder {path}" for path in (self.folder / "tmp").glob("autotune-*")]
        run = self.run_folder()
        if run:
            folders = [path.name for path in (run / "trials").glob("*")]
            found += [f"trial folder {name}" for name in folders if int(name) > finished]
            found += [f"file {path}" for path in run.rglob("*.partial")]
        return found

    def lines(self) -> list[bytes]:
        """The finished trials, as they are on disk."""
        run = self.run_folder()
        if run is None or not (run / "trials.jsonl").exists():
            return []
        return (run / "trials.jsonl").read_bytes().split(b"\n")[:-1]

    def run_folder(self) -> Path | None:
        """The run's folder, None before it can be resumed."""
        found = [path.parent for path in (self.folder / "runs").glob("*/experiment.yaml")]
        whole = [path for path in found if (path / "trials.jsonl").exists()]
        return whole[0] if whole else None

    def stage(self) -> str:
        """Roughly where the run is, for the table."""
        run = self.run_folder()
        if run is None:
            return "before the run folder"
        words = {word for _, line in self.commands() for word in line}
        if b"autotuner.load.worker" in words:
            return "under load"
        return "server starting or stopping" if b"autotuner.simulate.server" in words else "no server"

    def kept(self, victim: Victim) -> Iterator[int]:
        """The simulated engines of this round, or their keepers."""
        for pid, words in self.commands():
            is_keeper = any(word.endswith(b"keeper.py") for word in words)
            if b"autotuner.simulate.server" in words and is_keeper == (victim == "keeper"):
                yield pid

    def commands(self) -> Iterator[tuple[int, list[bytes]]]:
        """Process id and words of everything this round runs."""
        for pid in self.marked():
            with contextlib.suppress(OSError):
                yield pid, Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")

    def marked(self) -> Iterator[int]:
        """Every living process that this round started, however deep."""
        wanted = f"{MARK}={self.mark}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)

    def popen(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the tool."""
        return self.started(*arguments, said=subprocess.DEVNULL)

    def started(self, *arguments: str, said: int) -> subprocess.Popen[bytes]:
        """Start the tool, its errors going to `said`."""
        return subprocess.Popen(
            [str(COMMAND), *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )

    def count_up(self) -> None:
        """Let the run go on to its end, and count its trials."""
        self.finish()
        done = self.lines()
        self.tally.finished += len(done)
        self.tally.failed_by_kill += sum(b'"failure":{' in line for line in done)
        if len(done) != self.trials:
            self.tally.left.append(f"a run that ended with {len(done)} of {self.trials} trials")


def campaign(instants: int, seed: int, trials: int = 8) -> Tally:
    """Kill at `instants` random instants, over as many runs as that takes."""
    draw, tally = random.Random(seed), Tally()
    while sum(tally.kills.values()) < instants:
        with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
            this = Round(Path(folder), draw, tally, trials)
            this.play(instants - sum(tally.kills.values()))
            this.count_up()
    return tally


def table(tally: Tally) -> str:
    """The figures as Markdown."""
    rows = [
        ("kills", sum(tally.kills.values())),
        *((f"of them: {name}", count) for name, count in sorted(tally.kills.items())),
        *((f"at: {name}", count) for name, count in sorted(tally.at.items())),
        ("finished trials", tally.finished),
        ("of them failed, because their server was killed", tally.failed_by_kill),
        ("finished trials lost", tally.lost),
        ("trials repeated", tally.repeated),
        ("left behind after `autotune clean`", len(tally.left)),
        *((f"removed by it: {name}", count) for name, count in sorted(tally.removed.items())),
    ]
    return "\n".join(["| | |", "| --- | ---: |", *(f"| {name} | {count} |" for name, count in rows)])


def main() -> int:
    """Read the command line, run the campaign, print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instants", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=8)
    asked = parser.parse_args()
    began = time.monotonic()
    tally = campaign(asked.instants, asked.seed, asked.trials)
    print(table(tally))
    print(f"\n{time.monotonic() - began:.0f} s, seed {asked.seed}")
    for left in tally.left:
        print(f"left: {left}")
    return 0 if tally.clean else 1


if __name__ == "__main__":
    sys.exit(main())
