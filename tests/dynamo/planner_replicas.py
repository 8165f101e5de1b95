"""Run by the environment of the 0.9.1 planner: its replicas for each question on stdin, as JSON on the last line."""

import json
import sys
from typing import Any

from dynamo.planner.utils.planner_argparse import create_sla_planner_parser
from dynamo.planner.utils.planner_core import Planner


def replicas(question: dict[str, Any]) -> list[list[int]]:
    """(Prefill, decode) replicas for each load of {"folder": ..., "loads": [...]}."""
    options = ["--profile-results-dir", question["folder"], "--load-predictor", "constant", "--backend", "vllm"]
    arguments = create_sla_planner_parser().parse_args(options)
    planner = Planner(None, arguments, dryrun=True)
    pairs = []
    for load in question["loads"]:
        arguments.itl, arguments.max_gpu_budget = load["itl"], load["max_gpus"]
        arguments.prefill_engine_num_gpu, arguments.decode_engine_num_gpu = load["prefill_gpus"], load["decode_gpus"]
        requests = load["rate"] * arguments.adjustment_interval
        pairs.append(list(map(int, planner._compute_replica_requirements(requests, load["isl"], load["osl"]))))
    return pairs


sys.stdout.write("\n" + json.dumps([replicas(question) for question in json.load(sys.stdin)]) + "\n")
