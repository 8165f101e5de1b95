"""Whether gains that a run claims on a real engine are reproduced by fresh launches.

    python tests/real/setup_vllm.py ~/engine
    python benchmarks/scoring/claims.py --vllm ~/engine/vllm --model ~/engine/tiny-model --json claims.json

Each of ten settings is tuned as `autotune run` does it: the engine's defaults, one candidate, and
both again as often as by default. The claim is the 95% interval of the gain. Then winner and
defaults are launched three more times each, alternately, at the load points of their standings; the
interval holds when the ratio of their geometric means lies in it. About 80 minutes on two quiet
cores; settings that are in the JSON file already are not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from autotuner.config import Composition, TaskContext, compose
from autotuner.core import ignore_progress
from autotuner.evaluate.create import create_evaluator
from autotuner.execute.serial import SerialExecutor
from autotuner.scoring.confirm import Gain, confirmed_gain
from autotuner.scoring.judge import judge
from autotuner.scoring.pool import launch_log_utilities
from autotuner.search.launch import Launch, load_plan_for
from autotuner.session import run

PAIR_COUNT, SEED_OFFSET = 3, 50_000
DURATION, MAX_DURATION, WARMUP = 6.0, 12.0, 2.0


@dataclass(frozen=True)
class Setting:
    """One candidate to tune against the defaults, at one load, for one objective."""

    parameters: Mapping[str, Any]
    scenario: str
    concurrency: int
    objective: str
    slo: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        flags = " ".join(f"{name}={value}" for name, value in self.parameters.items())
        targets = f", {self.slo}" if self.slo else ""
        return f"{flags}, {self.scenario} at {self.concurrency}, {self.objective}{targets}"


SETTINGS = (
    Setting({"max-running-requests": 4}, "D(128,32)", 16, "minimize_tpot"),
    Setting({"max-running-requests": 8}, "D(256,64)", 32, "minimize_tpot"),
    Setting({"max-running-requests": 2}, "D(64,64)", 8, "minimize_tpot"),
    Setting({"max-running-requests": 6}, "D(64,128)", 16, "minimize_tpot"),
    Setting({"max-running-requests": 3}, "N(128,40)/(48,16)", 12, "minimize_tpot"),
    Setting({"max-running-requests": 12}, "D(256,32)", 24, "maximize_goodput", {"tpot": 0.006}),
    Setting({"max-running-requests": 5}, "U(64,256)/(32,96)", 20, "minimize_tpot"),
    Setting({"max-running-requests": 20}, "D(200,40)", 32, "maximize_goodput", {"tpot": 0.008}),
    Setting({"max-running-requests": 10}, "N(300,90)/(60,20)", 40, "minimize_tpot"),
    Setting({"max-running-requests": 2}, "D(512,16)", 6, "minimize_tpot"),
    Setting({"max-running-requests": 7}, "D(100,100)", 14, "minimize_tpot"),
    Setting({"max-running-requests": 16}, "N(300,90)/(40,12)", 32, "minimize_latency"),
    Setting({"max-batched-tokens": 8192}, "D(1024,4)", 12, "minimize_ttft"),
    Setting({"max-batched-tokens": 1024}, "U(64,512)/(8,64)", 24, "minimize_cost"),
    Setting({"max-batched-tokens": 4096}, "D(512,8)", 16, "minimize_ttft"),
    Setting({"max-batched-tokens": 512}, "D(512,64)", 16, "minimize_latency"),
    Setting({"kv-block-size": 32}, "D(128,32)", 32, "maximize_throughput"),
)
"""Most run fewer requests at once than the defaults, which costs throughput and lowers TPOT: a real gain.
Where a setting is no gain the run claims none, and the next one takes its place."""
CLAIM_COUNT = 10


@dataclass(frozen=True)
class Claim:
    """The gain that a run claimed and the ratio over three fresh pairs of launches; None without a claim."""

    setting: str
    claimed: Gain | None
    again: float | None

    @property
    def holds(self) -> bool:
        """Whether the fresh ratio lies in the claimed interval."""
        return (
            self.claimed is not None and self.again is not None and self.claimed.low <= self.again <= self.claimed.high
        )

    def __str__(self) -> str:
        if self.claimed is None or self.again is None:
            return f"{self.setting}: nothing claimed"
        interval = f"{self.claimed.value:.3f} ({self.claimed.low:.3f} to {self.claimed.high:.3f})"
        reliable = "confirmed" if self.claimed.is_reliable else "no gain proven"
        return f"{self.setting}: {interval}, {reliable}; again {self.again:.3f}: {'holds' if self.holds else 'MISSES'}"


def composition(arguments: argparse.Namespace, setting: Setting) -> Composition:
    """The configuration of one run."""
    fixed = {"tp-size": [1], "mem-fraction-static": None, "enable-chunked-prefill": None}
    config = {
        "parameters": {**fixed, **{name: [value] for name, value in setting.parameters.items()}},
        "runtime": {
            "executable": str(arguments.vllm.resolve() / "bin" / "vllm"),
            "env": {"VLLM_CPU_KVCACHE_SPACE": "1"},
            "extra_args": ["--enforce-eager", "--max-model-len", "2048"],
        },
        "optimization": {"max_iterations": 2},
        "benchmark": {"duration": DURATION, "max_duration": MAX_DURATION, "warmup": WARMUP},
    }
    return compose(
        TaskContext(
            model_name=str(arguments.model.resolve()),
            base_runtime="vllm",
            deployment_mode="process",
            traffic_scenarios=[setting.scenario],
            num_concurrency=[setting.concurrency],
            optimization_strategy="grid_search",
            optimization_objective=setting.objective,
            slo_config=dict(setting.slo) if setting.slo else None,
            user_overrides=config,
        )
    )


def check(arguments: argparse.Namespace, setting: Setting, folder: Path) -> Claim:
    """Tune a setting, then launch its winner and the defaults three more times."""
    composed = composition(arguments, setting)
    result = run(composed, output=folder)
    experiment, ranking = composed.experiment, result.ranking
    gain = confirmed_gain(ranking, result.trials, experiment)
    winner, defaults = ranking.winner, ranking.defaults
    if gain is None or winner is None or defaults is None:
        return Claim(str(setting), None, None)
    executor = SerialExecutor(create_evaluator(experiment, ignore_progress))
    logs: dict[int, list[float]] = {winner.trial_number: [], defaults.trial_number: []}
    for pair in range(PAIR_COUNT):
        for standing in (winner, defaults):
            seed = experiment.benchmark.seed + SEED_OFFSET + pair
            workload = replace(experiment.workload(), load_points=standing.load_points, seed=seed)
            launch = Launch(standing.candidate, "confirmation", load_plan_for(experiment, workload))
            executor.submit(pair, launch, folder / f"again-{pair}-{standing.trial_number}")
            trial = executor.wait_for_trial()
            assert trial is not None
            logs[standing.trial_number] += launch_log_utilities([judge(trial, experiment)], standing.load_points)
    again = math.exp(fmean(logs[winner.trial_number]) - fmean(logs[defaults.trial_number]))
    return Claim(str(setting), gain, again)


def main() -> None:
    """Measure the settings that are missing, and print how many intervals hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", type=Path, required=True, help="environment that tests/real/setup_vllm.py made")
    parser.add_argument("--model", type=Path, required=True, help="model that tests/real/setup_vllm.py made")
    parser.add_argument(
        "--json",
        type=Path,
        required=True,
        help="file to which claims are written, and from which earlier ones are read",
    )
    arguments = parser.parse_args()
    rows = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
    claims = [Claim(row["setting"], Gain(**row["claimed"]) if row["claimed"] else None, row["again"]) for row in rows]
    for claim in claims:
        print(claim, flush=True)
    for setting in SETTINGS:
        claims_made = [claim for claim in claims if claim.claimed is not None]
        if len(claims_made) >= CLAIM_COUNT:
            break
        if str(setting) in {claim.setting for claim in claims}:
            continue
        with tempfile.TemporaryDirectory(prefix="claims-") as folder:
            claims.append(check(arguments, setting, Path(folder)))
        print(claims[-1], flush=True)
        arguments.json.write_text(json.dumps([asdict(claim) for claim in claims], indent=1))
    claims_made = [claim for claim in claims if claim.claimed is not None]
    print(f"{sum(claim.holds for claim in claims_made)} of {len(claims_made)} claimed intervals hold")


if __name__ == "__main__":
    main()
