"""Run by the environment of 1.6.1: rates of the real planner's regression for each question on stdin, as JSON."""

import json
import sys
from importlib.machinery import PathFinder
from types import ModuleType

PACKAGES = (
    "dynamo.common",
    "dynamo.planner",
    "dynamo.planner.config",
    "dynamo.planner.core",
    "dynamo.planner.core.perf_model",
    "dynamo.planner.monitoring",
)
"""Entered without running their __init__.py, which import what only a planner in a cluster needs."""
MAX_SAMPLES, MIN_SAMPLES = 64, 5


def enter_packages() -> None:
    """Make the modules of `PACKAGES` importable one by one."""
    spec = PathFinder.find_spec("dynamo")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("this environment has no ai-dynamo")
    (home,) = spec.submodule_search_locations
    for name in PACKAGES:
        package = ModuleType(name)
        package.__path__ = [f"{home}/{name.removeprefix('dynamo.').replace('.', '/')}"]
        sys.modules[name] = package


def main() -> None:
    """Answer [{"folder": ..., "max_kv_tokens": ..., "loads": [...]}] of stdin, one list of four rates a load."""
    enter_packages()
    from dynamo.planner.config.defaults import SubComponentType
    from dynamo.planner.core.perf_model.decode import DecodeRegressionModel
    from dynamo.planner.core.perf_model.prefill import PrefillRegressionModel
    from dynamo.planner.monitoring.perf_metrics import _convert_profiling_data_to_fpms as read_samples

    answers = []
    for question in json.load(sys.stdin):
        prefill = PrefillRegressionModel(MAX_SAMPLES, MIN_SAMPLES)
        prefill.load_benchmark_fpms(read_samples(question["folder"], SubComponentType.PREFILL))
        decode = DecodeRegressionModel(MAX_SAMPLES, MIN_SAMPLES)
        decode.load_benchmark_fpms(read_samples(question["folder"], SubComponentType.DECODE))
        rates = []
        for load in question["loads"]:
            isl, osl = load["isl"], load["osl"]
            prompts = prefill.find_best_engine_prefill_rps(1e9, isl)
            tokens = decode.find_best_engine_decode_rps(
                load["itl"], isl + osl / 2, osl, max_kv_tokens=question["max_kv_tokens"]
            )
            rates.append([*prompts, *tokens])
        answers.append(rates)
    sys.stdout.write("\n" + json.dumps(answers) + "\n")


main()
