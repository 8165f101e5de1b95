"""Racing against a grid on a real vLLM: wall time, launches, load points, and both winners side by side.

    python tests/real/setup_vllm.py ~/engine
    python benchmarks/search/real.py --vllm ~/engine/vllm --model ~/engine/tiny-model --write docs/reference/figures.md

Both strategies search the same candidates with the same capacity search and the same first launch
of the engine's defaults. Then both winners are launched again in turn, each at the load that its
search found, and their throughputs are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "load"))

from page import machine, table, today, write_section

from autotuner.scoring.intervals import t_quantile

PARAMETERS = {
    "tp-size": [1],
    "mem-fraction-static": [0.9],
    "max-running-requests": [8, 64],
    "max-batched-tokens": [2048, 4096],
    "enable-chunked-prefill": [True, False],
    "kv-block-size": [32, 128],
}
CONSTRAINTS = {"budget": "enable-chunked-prefill or max-batched-tokens > 2048"}
"""Without chunking a whole prompt must fit into one iteration: 12 combinations are left."""

SCENARIO, HIGHEST = "D(128,32)", 64
SLO = "ttft=0.4,tpot=0.02"


@dataclass(frozen=True)
class Searched:
    """What a strategy chose, at which load, and what it spent."""

    strategy: str
    seconds: float
    launches: int
    load_points: int
    parameters: dict[str, Any]
    concurrency: int
    value: float


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def configuration(given: argparse.Namespace, folder: Path) -> Path:
    """Write the candidates, and how the engine is started here."""
    settings = {
        "parameters": PARAMETERS,
        "constraints": CONSTRAINTS,
        "runtime": {
            "executable": str(given.vllm.resolve() / "bin" / "vllm"),
            "env": {"VLLM_CPU_KVCACHE_SPACE": "1"},
            "extra_args": ["--enforce-eager", "--max-model-len", "2048"],
        },
        "model": {"id_or_path": str(given.model.resolve())},
    }
    path = folder / "candidates.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def run(folder: Path, config: Path, given: argparse.Namespace, *more: str) -> tuple[dict[str, Any], float]:
    """One `autotune run`, its JSON, and its wall time."""
    command = [
        *(sys.executable, "-m", "autotuner", "run", "--runtime", "vllm", "--deployment", "process"),
        *("--config", str(config), "--scenario", SCENARIO, "--objective", "maximize_throughput", "--slo", SLO),
        *("--duration", str(given.duration), "--warmup", str(given.warmup), "--output", str(folder / "runs"), "--json"),
        *more,
    ]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout), time.monotonic() - began


def search(strategy: str, folder: Path, config: Path, given: argparse.Namespace) -> Searched:
    """Search with one strategy, without confirmations."""
    found, seconds = run(
        folder,
        config,
        given,
        *("--strategy", strategy, "--find-capacity", "--concurrency", f"1,{HIGHEST}", "--max-iterations", "64"),
        *("--set", "optimization.confirm=0"),
    )
    trials, best = found["trials"], found["ranking"][0]
    winner = next(trial for trial in trials if trial["number"] == found["winner"])
    say(f"{strategy}: {seconds:.0f} s, {len(trials)} launches, winner {winner['candidate']} at {best['value']:.0f}")
    return Searched(
        strategy=strategy,
        seconds=seconds,
        launches=len(trials),
        load_points=sum(len(trial["load_points"]) for trial in trials),
        parameters=winner["candidate"]["parameters"],
        concurrency=round(winner["capacities"][0]["value"]),
        value=best["value"],
    )


def again(found: Searched, folder: Path, config: Path, given: argparse.Namespace, seed: int) -> float:
    """Launch a winner once more, at its load; its total tokens/s."""
    settings = yaml.safe_load(config.read_text())
    settings["parameters"] |= {name: [value] for name, value in found.parameters.items()}
    path = folder / f"again-{found.strategy}.yaml"
    path.write_text(yaml.safe_dump(settings))
    load = ("--strategy", "grid_search", "--concurrency", str(found.concurrency), "--seed", str(seed))
    # the engine's own defaults are the baseline, which is all that one launch leaves room for
    defaults = "false" if found.parameters else "true"
    only = ("--max-iterations", "1", "--set", f"optimization.baseline={defaults}", "--set", "optimization.confirm=0")
    said, _ = run(folder, path, given, *load, *only)
    (trial,) = said["trials"]
    (point,) = trial["load_points"]
    return float(point["metrics"]["total_throughput"])


def compared(racing: Sequence[float], grid: Sequence[float]) -> str:
    """How many times the grid's winner the racing search's is, with its 95% interval over pairs."""
    logs = [math.log(one / other) for one, other in zip(racing, grid, strict=True)]
    middle = statistics.fmean(logs)
    spread = t_quantile(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    within = "within noise" if abs(middle) <= spread else "beyond noise"
    low, value, high = (math.exp(middle + side) for side in (-spread, 0.0, spread))
    return f"{value:.3f} times the grid's (95% interval {low:.3f} to {high:.3f}): {within}"


def row(found: Searched) -> list[str]:
    named = ", ".join(f"{name} {value}" for name, value in found.parameters.items()) or "the engine's defaults"
    what = f"{named}, at {found.concurrency} in flight"
    cells = [f"{found.seconds:.0f}", str(found.launches), str(found.load_points), f"{found.value:,.0f}", what]
    return [found.strategy, *cells]


def main() -> None:
    """Search with both, compare the winners, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", type=Path, required=True, help="environment that tests/real/setup_vllm.py made")
    parser.add_argument("--model", type=Path, required=True, help="model that tests/real/setup_vllm.py made")
    parser.add_argument("--duration", type=float, default=10.0)
    parser.add_argument("--warmup", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--strategies", nargs="+", default=["racing", "grid_search"])
    parser.add_argument("--keep", type=Path, help="folder in which the runs are left")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="racing-")))
        folder.mkdir(parents=True, exist_ok=True)
        config = configuration(given, folder)
        found = [search(strategy, folder, config, given) for strategy in given.strategies]
        again_of: dict[str, list[float]] = {one.strategy: [] for one in found}
        for repeat in range(given.repeats if len(found) > 1 else 0):
            for one in found:
                again_of[one.strategy].append(again(one, folder, config, given, seed=100 + repeat))
            say(f"again: {again_of}")
    head = ("strategy", "seconds", "launches", "load points", "total tokens/s", "winner")
    text = f"Measured {today()} on {machine()}.\n\n{table(head, [row(one) for one in found])}"
    if len(found) > 1:
        first, second = found
        ratio = second.seconds / first.seconds
        winners = compared(again_of[first.strategy], again_of[second.strategy])
        text += (
            f"\n\nThe grid takes {ratio:.1f} times as long. Launched again in turn, the winner of racing is {winners}."
        )
    print(text)
    if given.write:
        write_section(given.write, "search on a real engine", text)


if __name__ == "__main__":
    main()
