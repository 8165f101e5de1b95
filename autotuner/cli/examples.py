"""Example invocations of each command, shown on its help page and in the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """A command, possibly over several lines, and its purpose."""

    purpose: str
    command: str


EXAMPLES: Mapping[str, tuple[Example, ...]] = {
    "": (
        Example("Tune a simulated engine, in about a minute", "autotune run --profile quick-test"),
        Example("Check what this machine can run", "autotune doctor"),
        Example("Load-test a running server", "autotune bench http://127.0.0.1:8000 --concurrency 1,8,64"),
    ),
    "run": (
        Example("Tune a simulated engine, in about a minute", "autotune run --profile quick-test"),
        Example(
            "Show what would be launched, and how long it would take",
            "autotune run --profile balanced --gpu H100 --dry-run",
        ),
        Example(
            "Maximize the throughput of vLLM within latency targets",
            "autotune run --profile balanced --runtime vllm --model ./my-model \\\n"
            "  --scenario 'D(1000,200)' --concurrency 1,8,64 \\\n"
            "  --slo ttft=1.0,tpot=0.05 --objective maximize_throughput",
        ),
    ),
    "trace": (
        Example(
            "Trace a vLLM that writes to /data/traces",
            "autotune trace http://127.0.0.1:8000 --server-folder /data/traces",
        ),
        Example(
            "Workers of Dynamo behind a frontend",
            "autotune trace http://127.0.0.1:8000 --server-folder /data/traces \\\n"
            "  --worker http://127.0.0.1:9090 --worker http://127.0.0.1:9091",
        ),
    ),
    "bench": (
        Example(
            "Three loads, judged by targets, with files and plots",
            "autotune bench http://127.0.0.1:8000 --scenario 'D(1000,200)' \\\n"
            "  --concurrency 1,8,64 --slo ttft=1.0,tpot=0.05 --output out",
        ),
        Example(
            "Find the highest load that meets the targets",
            "autotune bench http://127.0.0.1:8000 --find-capacity --slo ttft=1.0",
        ),
        Example("Replay a recorded trace", "autotune bench http://127.0.0.1:8000 --scenario file:trace.jsonl"),
    ),
    "compare": (
        Example("What moved between two runs", "autotune compare runs/before runs/after"),
        Example(
            "Fail a pipeline if the winner got worse",
            "autotune compare baseline.json runs/after --gate --launches 5 \\\n  --junit gate.xml",
        ),
    ),
    "export": (
        Example("The newest run as benchmark reports of llm-d", "autotune export --format llm-d"),
        Example("The requests of a load point, for Perfetto", "autotune export --format trace --trial 2"),
    ),
    "baseline": (Example("Keep the newest run as the baseline", "autotune baseline save --to baseline.json"),),
    "baseline save": (
        Example("Keep the newest run as the baseline", "autotune baseline save --to baseline.json"),
        Example("Replace it on purpose", "autotune baseline save runs/after --to baseline.json --accept"),
    ),
    "profiles": (
        Example("List all profiles", "autotune profiles list"),
        Example("Show one of them", "autotune profiles show balanced"),
    ),
    "profiles list": (Example("List all profiles", "autotune profiles list"),),
    "profiles show": (Example("Show the values a profile sets", "autotune profiles show low-latency"),),
    "profiles diff": (Example("Compare two profiles", "autotune profiles diff low-latency high-throughput"),),
    "profiles check": (Example("Check your own profile", "autotune profiles check ./profiles/mine.yaml"),),
    "config": (Example("Show the configuration of a profile", "autotune config show --profile production"),),
    "config show": (
        Example(
            "Show every value of a run and the layer it came from",
            "autotune config show --profile production \\\n  --set optimization.max_iterations=5",
        ),
        Example(
            "Write the configuration as YAML",
            "autotune config show --profile production --format yaml > mine.yaml",
        ),
    ),
    "ui": (
        Example("Watch the newest run in a browser, while it goes on or later", "autotune ui"),
        Example("On a port of your choice, for a tunnel", "autotune ui --port 8899"),
    ),
    "report": (
        Example("Show the newest run", "autotune report"),
        Example("Write the page again, to send it to the team", "autotune report --format html --to report.html"),
        Example(
            "Fail a pipeline unless the winner is proven to meet the targets", "autotune report --fail-on undecided"
        ),
    ),
    "command": (
        Example("Start the winner of the newest run", "autotune command > start.sh && sh start.sh"),
        Example("Prefill servers apart from decode servers", "autotune command --prefill 1 --decode 3 --to deployed"),
        Example(
            "Manifests of Kubernetes, with the model on a persistent volume claim",
            "autotune command --format kubernetes --model-volume models --to deployed",
        ),
    ),
    "predict": (
        Example("Rank the layouts on 8 GPUs", "autotune predict --model qwen3-32b --gpu H100"),
        Example("Latency and throughput of one", "autotune predict point --model qwen3-32b --gpu H100 --tp 2"),
        Example("Find the GPUs for a rate", "autotune predict size --model qwen3-32b --gpu any --rate 50"),
    ),
    "predict rank": (
        Example(
            "Rank the deployments that fit on 32 GPUs",
            "autotune predict rank --model qwen3-32b --gpu H100 \\\n"
            "  --isl 4000 --osl 500 --total-gpus 32 --slo tpot=0.03",
        ),
        Example(
            "Prefill on one GPU type and decode on another",
            "autotune predict rank --model llama-3.1-70b --gpu H100 --decode-gpu H200 \\\n"
            "  --isl 4000 --osl 500 --total-gpus 16 --slo tpot=0.03",
        ),
    ),
    "predict size": (
        Example(
            "Find the GPU type and count that sustain a rate within targets, and the cost",
            "autotune predict size --model qwen3-32b --gpu H100,H200,B200 \\\n"
            "  --isl 4000 --osl 500 --rate 50 --slo ttft=1.0,tpot=0.03 \\\n"
            "  --price H100=2.5 --price H200=3.2 --price B200=5.5",
        ),
    ),
    "predict point": (
        Example(
            "Latency and throughput of one deployment, by operator",
            "autotune predict point --model qwen3-32b --gpu H100 --tp 2 \\\n  --isl 4000 --osl 500 --concurrency 32",
        ),
        Example(
            "Under Poisson arrivals, with the time spent queueing",
            "autotune predict point --model qwen3-32b --gpu H100 --tp 2 \\\n  --isl 4000 --osl 500 --rate 1.5",
        ),
    ),
    "predict table": (
        Example("Predict the rows of a CSV file", "autotune predict table rows.csv --output predicted.csv"),
    ),
    "sla": (
        Example("Choose workers without a GPU", "autotune sla run --gpus-per-engine 1,2 --evaluator simulated"),
        Example("Plan replicas from the profile", "autotune sla plan --rate 50"),
    ),
    "sla run": (
        Example(
            "Profile vLLM on 1 to 8 GPUs, and plan for 100 requests/s",
            "autotune sla run --runtime vllm --model ./my-model --isl 3000 --osl 150 \\\n"
            "  --ttft 200 --itl 20 --gpus-per-engine 1..8 --rate 100",
        ),
        Example(
            "Profile an endpoint that runs already",
            "autotune sla run --url http://127.0.0.1:8000 --max-kv-tokens 680000",
        ),
        Example(
            "Predict instead of measuring",
            "autotune sla run --runtime vllm --model qwen3-32b --gpu H100 \\\n"
            "  --evaluator predicted --output predicted-profile",
        ),
    ),
    "sla show": (Example("Show what a profile decided and why", "autotune sla show sla-profile"),),
    "sla plan": (
        Example(
            "Workers for another rate, on at most 16 GPUs", "autotune sla plan sla-profile --rate 80 --total-gpus 16"
        ),
        Example(
            "Prefill on one GPU type and decode on another, with the cost",
            "autotune sla plan h100-profile h200-profile --rate 80 \\\n  --price H100=2.5 --price H200=3.2",
        ),
        Example("What Dynamo's planner would start", "autotune sla plan sla-profile --rate 80 --like dynamo-1.6"),
    ),
    "sla check": (Example("Check a profile that another program wrote", "autotune sla check profiling_results"),),
    "sla export": (
        Example("Manifests for Dynamo 1.6", "autotune sla export sla-profile --name my-model"),
        Example(
            "For an older operator and planner",
            "autotune sla export sla-profile --api v1alpha1 --planner 0.9.1 --output old",
        ),
    ),
    "sla apply": (Example("Check the deployment on the cluster, ask, and apply it", "autotune sla apply sla-profile"),),
    "sla compare": (
        Example("Compare a predicted profile with a measured one", "autotune sla compare measured predicted"),
    ),
    "calibrate": (
        Example("Fit the predictor to all runs in the folder runs", "autotune calibrate runs/*"),
        Example("Show the fitted factors", "autotune calibrate"),
        Example("Return to the bundled constants", "autotune calibrate --forget"),
    ),
    "doctor": (Example("Show what this machine can run, and what is missing", "autotune doctor"),),
    "clean": (Example("Remove the leftovers of killed runs", "autotune clean"),),
}
