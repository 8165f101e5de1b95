"""Kill or stop processes of a run at random times, resume, and count what was lost: `python campaign.py`.

A run of a few candidates on the simulated engine is killed and resumed until it is complete: each
time the tool (its server's keeper must terminate the server) or the server (the trial must fail, and
the run continue) gets SIGKILL at a random time, or while the run folder is being made. In other rounds
a load worker, the server, the keeper or the tool itself is stopped (SIGSTOP) before the tool is killed.
After each kill `autotune clean` runs, and then
nothing may remain: no process, no working folder of the load generator, no half-written trial.
Trials that were finished before a kill must still be there afterwards, byte for byte.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

COMMAND = Path(sys.executable).parent / "autotune"
RUN_ARGUMENTS = (
    *("--profile", "quick-test", "--runtime", "sim", "--duration", "0.3", "--warmup", "0.1", "--concurrency", "4"),
    *("--set", "runtime.extra_args=[--load-seconds, '0']", "--scenario", "D(20,5)"),
    *("--set", "parameters.max-running-requests=[8, 16, 32, 64]", "--set", "parameters.tp-size=[1]"),
    *("--set", "parameters.mem-fraction-static=[0.9]", "--set", "parameters.enable-chunked-prefill=[true, false]"),
)
MARKER_VARIABLE = "AUTOTUNE_CAMPAIGN"
"""Environment variable that marks every process of a killed run."""

Victim = Literal["tool", "server", "keeper", "worker"]
"""The keeper is the parent process that terminates a server when the tool goes away; a worker generates the load."""

STAGE_TIMEOUT_SECONDS = 30.0
CREATION_SECONDS = 0.02
"""Seconds from the first sign of a run folder in which the tool is killed to hit its making."""
STOP_SHARE = CREATION_SHARE = 0.3
"""Shares of the rounds in which a process is stopped and not killed, and of first starts that are killed early."""

SERVER_SHARE = 0.5
"""Share of the other rounds in which the random time begins with a server, and not with the start of the tool."""

EXIT_TIMEOUT_SECONDS = 15.0
"""Seconds a keeper may take to terminate its server, SIGTERM before SIGKILL."""


@dataclass
class Tally:
    """Counts over all kills."""

    kills: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)
    finished_trials: int = 0
    failed_by_kill: int = 0
    lost_trials: int = 0
    repeated_trials: int = 0
    leftovers: list[str] = field(default_factory=list)
    removed: Counter[str] = field(default_factory=Counter)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, repeated or left behind."""
        return not (self.lost_trials or self.repeated_trials or self.leftovers)


class KilledRun:
    """One run in its own folder, which is killed and resumed."""

    def __init__(self, folder: Path, rng: random.Random, tally: Tally, trials: int) -> None:
        self.folder = folder
        self.rng = rng
        self.tally = tally
        self.trials = trials
        self.marker = f"{os.getpid()}-{folder.name}"
        temporary = folder / "tmp"
        temporary.mkdir()
        own = {MARKER_VARIABLE: self.marker, "TMPDIR": str(temporary), "XDG_CACHE_HOME": str(folder)}
        self.environment = {**os.environ, **own}

    def kill_repeatedly(self, kills: int) -> int:
        """Kill until the run is complete, at most `kills` times; returns the number of kills."""
        for count in range(kills):
            if not self.kill_once():
                return count
        self.finish()
        return kills

    def kill_once(self) -> bool:
        """Start or resume, kill at a random time, clean up and check; False when the run was complete before that."""
        earlier = self.names_of_runs()
        process = self.start()
        victim: Victim = self.rng.choice(("tool", "tool", "server", "keeper", "worker"))
        is_stop = self.rng.random() < STOP_SHARE
        is_at_creation = self.run_folder() is None and self.rng.random() < CREATION_SHARE
        if is_at_creation:
            self.wait_for_stage(process, lambda: not self.names_of_runs() <= earlier)
            time.sleep(self.rng.uniform(0.0, CREATION_SECONDS))
        else:
            if self.rng.random() < SERVER_SHARE:
                self.wait_for_stage(process, lambda: any(self.pids_of("server")))
            time.sleep(self.rng.uniform(0.0, 3.0))
        was_running = process.poll() is None
        self.tally.stages["making the run folder" if is_at_creation else self.stage()] += was_running
        pids = [process.pid] if victim == "tool" else list(self.pids_of(victim))
        if victim == "tool" and not is_stop:
            self.tally.kills["tool"] += was_running
        elif pids:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP if is_stop else signal.SIGKILL)
            # sometimes the tool has time to notice
            time.sleep(self.rng.choice((0.0, self.rng.uniform(0.0, 2.0))))
            self.tally.kills[f"{victim} {'stopped' if is_stop else 'killed'}, then tool"] += was_running
        else:
            self.tally.kills["tool"] += was_running
        before = self.trial_lines()
        process.kill()
        process.wait()
        self.check(before)
        return was_running

    def names_of_runs(self) -> set[str]:
        """The names of run folders, and of those that are being made."""
        runs = self.folder / "runs"
        return {path.name for path in runs.iterdir()} if runs.is_dir() else set()

    def wait_for_stage(self, process: subprocess.Popen[bytes], has_begun: Callable[[], bool]) -> None:
        """Wait for a stage of the run, or for the end of the tool."""
        deadline = time.monotonic() + STAGE_TIMEOUT_SECONDS
        while process.poll() is None and time.monotonic() < deadline and not has_begun():
            time.sleep(0.001)

    def start(self) -> subprocess.Popen[bytes]:
        """Start the run, or resume it."""
        run = self.run_folder()
        arguments = ("--resume", str(run)) if run else (*RUN_ARGUMENTS, "--max-iterations", str(self.trials))
        return self.start_tool("run", *arguments)

    def finish(self) -> None:
        """Let the run continue to its end, and check it."""
        before = self.trial_lines()
        self.start().communicate()
        self.check(before)

    def check(self, before: list[bytes]) -> None:
        """Clean up as a user would, then count what was lost, repeated or left behind."""
        output = subprocess.run(
            [str(COMMAND), "clean"], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=True
        ).stdout
        for line in output.splitlines():
            if line.startswith("removed "):
                self.tally.removed[line.split()[1]] += 1
        after = self.trial_lines()
        self.tally.lost_trials += sum(line not in after for line in before)
        numbers = [line.partition(b'"number":')[2].partition(b",")[0] for line in after]
        self.tally.repeated_trials += len(numbers) - len(set(numbers))
        candidates = [line.partition(b'"candidate":')[2].partition(b',"measurement"')[0] for line in after]
        self.tally.repeated_trials += len(candidates) - len(set(candidates))
        self.tally.leftovers += self.leftovers(len(after))

    def leftovers(self, finished: int) -> list[str]:
        """Processes of this run, working folders, and trial folders without a trial."""
        deadline = time.monotonic() + EXIT_TIMEOUT_SECONDS
        while (alive := list(self.process_ids())) and time.monotonic() < deadline:
            time.sleep(0.05)
        leftovers = [f"process {pid}" for pid in alive]
        leftovers += [f"folder {path}" for path in (self.folder / "tmp").glob("autotune-*")]
        run = self.run_folder()
        if run:
            folders = [path.name for path in (run / "trials").glob("*")]
            leftovers += [f"trial folder {name}" for name in folders if int(name) > finished]
            leftovers += [f"file {path}" for path in run.rglob("*.partial")]
        return leftovers

    def trial_lines(self) -> list[bytes]:
        """The lines of trials.jsonl, one per finished trial."""
        run = self.run_folder()
        if run is None or not (run / "trials.jsonl").exists():
            return []
        return (run / "trials.jsonl").read_bytes().split(b"\n")[:-1]

    def run_folder(self) -> Path | None:
        """The run's folder, None before it can be resumed."""
        folders = [path.parent for path in (self.folder / "runs").glob("[!.]*/experiment.yaml")]
        resumable = [path for path in folders if (path / "trials.jsonl").exists()]
        return resumable[0] if resumable else None

    def stage(self) -> str:
        """Roughly which stage the run is in, for the table."""
        run = self.run_folder()
        if run is None:
            return "before the run folder"
        words = {word for _, line in self.command_lines() for word in line}
        if b"autotuner.load.worker" in words:
            return "under load"
        return "server starting or stopping" if b"autotuner.simulate.server" in words else "no server"

    def pids_of(self, victim: Victim) -> Iterator[int]:
        """Pids of the load workers or simulated engines of this run, or of the keepers of engines."""
        for pid, words in self.command_lines():
            if victim == "worker":
                if b"autotuner.load.worker" in words:
                    yield pid
                continue
            is_keeper = any(word.endswith(b"keeper.py") for word in words)
            if b"autotuner.simulate.server" in words and is_keeper == (victim == "keeper"):
                yield pid

    def command_lines(self) -> Iterator[tuple[int, list[bytes]]]:
        """Pid and argv of every process of this run."""
        for pid in self.process_ids():
            with contextlib.suppress(OSError):
                yield pid, Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")

    def process_ids(self) -> Iterator[int]:
        """Pids of all live processes that this run started, directly or not."""
        marker = f"{MARKER_VARIABLE}={self.marker}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if marker in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)

    def start_tool(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the tool."""
        return self.start_process(*arguments, stderr=subprocess.DEVNULL)

    def start_process(self, *arguments: str, stderr: int) -> subprocess.Popen[bytes]:
        """Start the tool with its stderr sent to `stderr`."""
        return subprocess.Popen(
            [str(COMMAND), *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )

    def finish_and_count(self) -> None:
        """Let the run continue to its end, and count its trials."""
        self.finish()
        lines = self.trial_lines()
        self.tally.finished_trials += len(lines)
        self.tally.failed_by_kill += sum(b'"failure":{' in line for line in lines)
        if len(lines) != self.trials:
            self.tally.leftovers.append(f"a run that ended with {len(lines)} of {self.trials} trials")


def campaign(instants: int, seed: int, trials: int = 8) -> Tally:
    """Kill at `instants` random times, over as many runs as that takes."""
    rng, tally = random.Random(seed), Tally()
    while sum(tally.kills.values()) < instants:
        with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
            run = KilledRun(Path(folder), rng, tally, trials)
            run.kill_repeatedly(instants - sum(tally.kills.values()))
            run.finish_and_count()
    return tally


def table(tally: Tally) -> str:
    """The counts as a Markdown table."""
    rows = [
        ("kills", sum(tally.kills.values())),
        *((f"of them: {name}", count) for name, count in sorted(tally.kills.items())),
        *((f"at: {name}", count) for name, count in sorted(tally.stages.items())),
        ("finished trials", tally.finished_trials),
        ("of them failed, because their server was killed", tally.failed_by_kill),
        ("finished trials lost", tally.lost_trials),
        ("trials repeated", tally.repeated_trials),
        ("left behind after `autotune clean`", len(tally.leftovers)),
        *((f"removed by it: {name}", count) for name, count in sorted(tally.removed.items())),
    ]
    return "\n".join(["| | |", "| --- | ---: |", *(f"| {name} | {count} |" for name, count in rows)])


def main() -> int:
    """Read the command line, run the campaign, print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instants", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=8)
    options = parser.parse_args()
    start_time = time.monotonic()
    tally = campaign(options.instants, options.seed, options.trials)
    print(table(tally))
    print(f"\n{time.monotonic() - start_time:.0f} s, seed {options.seed}")
    for leftover in tally.leftovers:
        print(f"left: {leftover}")
    return 0 if tally.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
