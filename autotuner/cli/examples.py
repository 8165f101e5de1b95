"""What to type, for each command: shown on its help page and in the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """A command, over several lines where it is long, and what it is for."""

    purpose: str
    command: str


EXAMPLES: Mapping[str, tuple[Example, ...]] = {
    "": (
        Example("See the whole job on a simulated engine, in about a minute", "autotune run --profile quick-test"),
        Example("Look at what this machine can run", "autotune doctor"),
        Example("Load-test a server that runs already", "autotune bench http://127.0.0.1:8000 --concurrency 1,8,64"),
    ),
    "run": (
        Example("See the whole job on a simulated engine, in about a minute", "autotune run --profile quick-test"),
        Example(
            "Ask what would be launched, and how long it would take",
            "autotune run --profile balanced --gpu H100 --dry-run",
        ),
        Example(
            "Find the most throughput of a real vLLM within latency targets",
            "autotune run --profile balanced --runtime vllm --model ./my-model \\\n"
            "  --scenario 'D(1000,200)' --concurrency 1,8,64 \\\n"
            "  --slo ttft=1.0,tpot=0.05 --objective maximize_throughput",
        ),
    ),
    "bench": (
        Example(
            "Three loads, judged by targets, with files and pictures",
            "autotune bench http://127.0.0.1:8000 --scenario 'D(1000,200)' \\\n"
            "  --concurrency 1,8,64 --slo ttft=1.0,tpot=0.05 --output out",
        ),
        Example(
            "The highest load at which it meets its targets",
            "autotune bench http://127.0.0.1:8000 --find-capacity --slo ttft=1.0",
        ),
        Example("A recorded trace, replayed", "autotune bench http://127.0.0.1:8000 --scenario file:trace.jsonl"),
    ),
    "profiles": (
        Example("See which profiles there are", "autotune profiles list"),
        Example("Look into one of them", "autotune profiles show balanced"),
    ),
    "profiles list": (Example("See which profiles there are", "autotune profiles list"),),
    "profiles show": (Example("See what a profile sets", "autotune profiles show low-latency"),),
    "profiles diff": (Example("Compare two profiles", "autotune profiles diff low-latency high-throughput"),),
    "profiles check": (Example("Check a profile of your own", "autotune profiles check ./profiles/mine.yaml"),),
    "config": (Example("See what a profile comes to", "autotune config show --profile production"),),
    "config show": (
        Example(
            "See every value of a run, and the layer it came from",
            "autotune config show --profile production \\\n  --set optimization.max_iterations=5",
        ),
        Example(
            "Write the configuration down as YAML",
            "autotune config show --profile production --format yaml > mine.yaml",
        ),
    ),
    "report": (
        Example("Show the newest run again", "autotune report"),
        Example("Write it down for a pull request", "autotune report --format markdown > report.md"),
        Example("Fail a pipeline unless the winner is proven", "autotune report --fail-on undecided"),
    ),
    "command": (
        Example("Start the winner of the newest run", "autotune command > start.sh && sh start.sh"),
        Example("As a container, on another port", "autotune command --format docker --port 9000"),
    ),
    "predict": (
        Example(
            "How fast one deployment is, and where its time goes",
            "autotune predict --model qwen3-32b --gpu H100 --tp 2 \\\n  --isl 4000 --osl 500 --concurrency 32",
        ),
        Example(
            "Which GPUs, and how many, sustain a load within targets, and at what cost",
            "autotune predict --model qwen3-32b --gpu H100,H200,B200 \\\n"
            "  --isl 4000 --osl 500 --target-rate 50 --slo ttft=1.0,tpot=0.03 \\\n"
            "  --price H100=2.5 --price H200=3.2 --price B200=5.5",
        ),
        Example(
            "The best use of 32 GPUs",
            "autotune predict --model qwen3-32b --gpu H100 \\\n  --isl 4000 --osl 500 --total-gpus 32 --slo tpot=0.03",
        ),
    ),
    "calibrate": (
        Example("Fit predictions to all runs in the folder runs", "autotune calibrate runs/*"),
        Example("Show what was fitted", "autotune calibrate"),
        Example("Go back to the bundled constants", "autotune calibrate --forget"),
    ),
    "doctor": (Example("See what this machine can run, and what is missing", "autotune doctor"),),
    "clean": (Example("Remove what a killed run left behind", "autotune clean"),),
}
