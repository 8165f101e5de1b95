"""Kill `autotune sla run` at random times, resume it, and count lost and repeated points: `python profile.py`.

    python benchmarks/kill/profile.py --kills 40 [--evaluator measured]

Profiles on the simulated engine, each killed (SIGKILL) and resumed until it is complete. Every line that was in
points.jsonl before a kill must be there afterwards, byte for byte; no point may be measured twice. Exits with 1 if any
is lost or repeated.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

AUTOTUNE = [sys.executable, "-m", "autotuner"]
REQUEST = ["--model", "llama-3.1-8b", "--gpu", "H100", "--gpus-per-engine", "1,2", "--isl", "300", "--osl", "20"]
REQUEST += ["--ttft", "500", "--itl", "100", "--prefill-points", "4", "--decode-points", "2"]
REQUEST += ["--max-context-length", "600", "--set", "parameters.max-running-requests=[8]"]
MOST_NEW_LINES, LONGEST_DELAY = 2, 2.0
"""Lines of points.jsonl that a run may add before it is killed, and seconds after the last of them."""
POLL_SECONDS = 0.01
COMPLETION_SECONDS = 600.0


def recorded_lines(folder: Path) -> list[bytes]:
    """The whole lines of points.jsonl; a last one without its newline was cut by the kill."""
    file = folder / "points.jsonl"
    return file.read_bytes().split(b"\n")[:-1] if file.exists() else []


def repeated_points(folder: Path) -> int:
    """How many points were recorded more than once."""
    keys: Counter[tuple[object, ...]] = Counter()
    for line in recorded_lines(folder):
        data = json.loads(line)
        if data["kind"] == "point":
            keys[data["mapping"], data["phase"], data["prompt_tokens"], data.get("concurrency")] += 1
    return sum(count - 1 for count in keys.values())


def kill_once(command: list[str], folder: Path, new_lines: int, delay: float) -> tuple[bool, int]:
    """(Whether the run was killed before its end, lines lost) of a run killed `delay` s after so many new lines."""
    before = recorded_lines(folder)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and len(recorded_lines(folder)) < len(before) + new_lines:
            time.sleep(POLL_SECONDS)
        try:
            process.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        was_killed = process.wait() == -signal.SIGKILL
    after = recorded_lines(folder)
    changed = sum(old != new for old, new in zip(before, after, strict=False))
    return was_killed, changed + max(0, len(before) - len(after))


def main() -> int:
    """0 if nothing was lost or repeated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--evaluator", choices=("simulated", "measured"), default="simulated")
    parser.add_argument("--seed", type=int, default=0)
    values = parser.parse_args()
    rng, kills, lost, repeated, incomplete, profiles = random.Random(values.seed), 0, 0, 0, 0, 0
    with tempfile.TemporaryDirectory() as home:
        while kills < values.kills:
            folder = Path(home, "profile")
            command = [*AUTOTUNE, "sla", "run", *REQUEST, "--evaluator", values.evaluator, "--output", str(folder)]
            profiles += 1
            while kills < values.kills:
                was_killed, lost_lines = kill_once(
                    command, folder, rng.randint(0, MOST_NEW_LINES), rng.uniform(0, LONGEST_DELAY)
                )
                lost += lost_lines
                if not was_killed:
                    break
                kills += 1
            started = time.monotonic()
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL, timeout=COMPLETION_SECONDS)
            points = sum(json.loads(line)["kind"] == "point" for line in recorded_lines(folder))
            is_complete = json.loads((folder / "sla.json").read_text())["complete"]
            incomplete += not is_complete
            repeated += repeated_points(folder)
            print(f"{kills} kills: {points} points, {time.monotonic() - started:.0f} s to the end", flush=True)
            shutil.rmtree(folder)
        subprocess.run([*AUTOTUNE, "clean"], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(
        f"{kills} kills of {profiles} profiles: {lost} lines lost, {repeated} points repeated, {incomplete} incomplete"
    )
    return 1 if lost or repeated or incomplete else 0


if __name__ == "__main__":
    sys.exit(main())
