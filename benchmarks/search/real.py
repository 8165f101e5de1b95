"""Racing against a grid on a real vLLM: wall time, launches, load points, and a comparison of both winners.

    python tests/real/setup_vllm.py ~/engine
    python benchmarks/search/real.py --vllm ~/engine/vllm --model ~/engine/tiny-model --write docs/reference/figures.md

Both strategies search the same candidates with the same capacity search and the same baseline. Then both winners are
launched again in turn, each at the capacity that its search outcomes, and their throughputs are compared.
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
"""Without chunked prefill a prompt must fit into one iteration: 12 combinations remain."""

SCENARIO, MAX_CONCURRENCY = "D(128,32)", 64
SLO = "ttft=0.4,tpot=0.02"


@dataclass(frozen=True)
class SearchOutcome:
    """A strategy's choice, its capacity and throughput, and the cost of the search."""

    strategy: str
    seconds: float
    launches: int
    load_points: int
    parameters: dict[str, Any]
    concurrency: int
    value: float


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def configuration(options: argparse.Namespace, folder: Path) -> Path:
    """Write the configuration: candidates, engine and model."""
    settings = {
        "parameters": PARAMETERS,
        "constraints": CONSTRAINTS,
        "runtime": {
            "executable": str(options.vllm.resolve() / "bin" / "vllm"),
            "env": {"VLLM_CPU_KVCACHE_SPACE": "1"},
            "extra_args": ["--enforce-eager", "--max-model-len", "2048"],
        },
        "model": {"id_or_path": str(options.model.resolve())},
    }
    path = folder / "candidates.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def run(folder: Path, config: Path, options: argparse.Namespace, *arguments: str) -> tuple[dict[str, Any], float]:
    """(JSON report, wall seconds) of one `autotune run`."""
    command = [
        *(sys.executable, "-m", "autotuner", "run", "--runtime", "vllm", "--deployment", "process"),
        *("--config", str(config), "--scenario", SCENARIO, "--objective", "maximize_throughput", "--slo", SLO),
        *(
            "--duration",
            str(options.duration),
            "--warmup",
            str(options.warmup),
            "--output",
            str(folder / "runs"),
            "--json",
        ),
        *arguments,
    ]
    start = time.monotonic()
    process = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ, check=False)
    if process.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)}\nended with {process.returncode}:\n{process.stderr[-3000:]}")
    return json.loads(process.stdout), time.monotonic() - start


def search(strategy: str, folder: Path, config: Path, options: argparse.Namespace) -> SearchOutcome:
    """Search with one strategy, without confirmations."""
    report, seconds = run(
        folder,
        config,
        options,
        *("--strategy", strategy, "--find-capacity", "--concurrency", f"1,{MAX_CONCURRENCY}", "--max-iterations", "64"),
        *("--set", "optimization.confirm=0"),
    )
    trials, best = report["trials"], report["ranking"][0]
    winner = next(trial for trial in trials if trial["number"] == report["winner"])
    log(f"{strategy}: {seconds:.0f} s, {len(trials)} launches, winner {winner['candidate']} at {best['value']:.0f}")
    return SearchOutcome(
        strategy=strategy,
        seconds=seconds,
        launches=len(trials),
        load_points=sum(len(trial["load_points"]) for trial in trials),
        parameters=winner["candidate"]["parameters"],
        concurrency=round(winner["capacities"][0]["value"]),
        value=best["value"],
    )


def relaunch(winner: SearchOutcome, folder: Path, config: Path, options: argparse.Namespace, seed: int) -> float:
    """Total tokens/s of one more launch of a winner, at its capacity."""
    settings = yaml.safe_load(config.read_text())
    settings["parameters"] |= {name: [value] for name, value in winner.parameters.items()}
    path = folder / f"again-{winner.strategy}.yaml"
    path.write_text(yaml.safe_dump(settings))
    load = ("--strategy", "grid_search", "--concurrency", str(winner.concurrency), "--seed", str(seed))
    # the engine's own defaults are the baseline, which takes the only launch
    defaults = "false" if winner.parameters else "true"
    single_launch = (
        "--max-iterations",
        "1",
        "--set",
        f"optimization.baseline={defaults}",
        "--set",
        "optimization.confirm=0",
    )
    report, _ = run(folder, path, options, *load, *single_launch)
    (trial,) = report["trials"]
    (point,) = trial["load_points"]
    return float(point["metrics"]["total_throughput"])


def comparison(racing: Sequence[float], grid: Sequence[float]) -> str:
    """Ratio of the racing winner's throughput to the grid winner's, with its 95% interval over pairs of launches."""
    logs = [math.log(one / other) for one, other in zip(racing, grid, strict=True)]
    mean = statistics.fmean(logs)
    half_width = t_quantile(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    significance = "within noise" if abs(mean) <= half_width else "beyond noise"
    low, value, high = (math.exp(mean + offset) for offset in (-half_width, 0.0, half_width))
    return f"{value:.3f}x the grid's (95% interval {low:.3f} to {high:.3f}): {significance}"


def table_row(outcome: SearchOutcome) -> list[str]:
    parameters = ", ".join(f"{name} {value}" for name, value in outcome.parameters.items()) or "the engine's defaults"
    winner = f"{parameters}, at {outcome.concurrency} in flight"
    cells = [f"{outcome.seconds:.0f}", str(outcome.launches), str(outcome.load_points), f"{outcome.value:,.0f}", winner]
    return [outcome.strategy, *cells]


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
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="racing-")))
        folder.mkdir(parents=True, exist_ok=True)
        config = configuration(options, folder)
        outcomes = [search(strategy, folder, config, options) for strategy in options.strategies]
        throughputs: dict[str, list[float]] = {one.strategy: [] for one in outcomes}
        for repeat in range(options.repeats if len(outcomes) > 1 else 0):
            for one in outcomes:
                throughputs[one.strategy].append(relaunch(one, folder, config, options, seed=100 + repeat))
            log(f"again: {throughputs}")
    headings = ("strategy", "seconds", "launches", "load points", "total tokens/s", "winner")
    text = f"Measured {today()} on {machine()}.\n\n{table(headings, [table_row(one) for one in outcomes])}"
    if len(outcomes) > 1:
        first, second = outcomes
        ratio = second.seconds / first.seconds
        winners = comparison(throughputs[first.strategy], throughputs[second.strategy])
        text += (
            f"\n\nThe grid takes {ratio:.1f} times as long. Launched again in turn, the winner of racing is {winners}."
        )
    print(text)
    if options.write:
        write_section(options.write, "search on a real engine", text)


if __name__ == "__main__":
    main()
