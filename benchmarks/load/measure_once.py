"""Drives autotune's load generator in one closed loop on a model of any vocabulary size, and prints JSON.

    python measure_once.py URL --streams 4 --requests 48 --vocabulary 512

`autotune bench` prompts with token ids of large vocabularies, which the model of tests/real lacks.
"""

from __future__ import annotations

import argparse
import json
import time

from autotuner.core import LoadPoint, Workload
from autotuner.experiment import Slo
from autotuner.load import Endpoint, measure
from autotuner.scoring.metrics import summarize
from autotuner.scoring.validity import check_validity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--limit", type=float, default=60.0)
    parser.add_argument("--scenario", default="D(100,100)")
    parser.add_argument("--model", default="m")
    parser.add_argument("--vocabulary", type=int, default=32_000)
    arguments = parser.parse_args()
    point = LoadPoint(arguments.scenario, concurrency=arguments.streams)
    observation = measure(
        Endpoint(arguments.url, arguments.model, vocab_size=arguments.vocabulary),
        point,
        Workload((point,), duration=arguments.limit, warmup=0.0, max_requests=arguments.requests),
        salt=f"once {time.time_ns()}",
        on_phase=lambda phase: None,
    )
    metrics = summarize(observation, Slo())
    if metrics.ttft is None or metrics.tpot is None:
        raise SystemExit(f"no request was answered: {dict(metrics.errors)}")
    failed = [check.name for check in check_validity(observation, metrics, Slo()) if not check.ok]
    reported = {
        "requests": metrics.ttft.n,
        "ttft_mean": metrics.ttft.mean * 1e3,
        "ttft_p99": metrics.ttft.p99 * 1e3,
        "tpot_mean": metrics.tpot.mean * 1e3,
        "output_throughput": metrics.output_throughput,
        "remark": ", ".join(failed),
    }
    print(json.dumps(reported))


if __name__ == "__main__":
    main()
