"""Small search problems, rules and load point results for tests."""

from collections.abc import Mapping
from typing import Any

from autotuner.core import Check, Distribution, LoadPoint, LoadPointResult, Metrics, Share
from autotuner.experiment import Experiment
from autotuner.expression import parse
from autotuner.rules import Rules
from autotuner.search.problem import Problem
from autotuner.search.space import Space


def experiment(**sections: Any) -> Experiment:
    """A small experiment; `sections` replace whole sections of it."""
    config: dict[str, Any] = {
        "task_name": "t",
        "model": {"id_or_path": "m"},
        "base_runtime": "sim",
        "parameters": {},
        "benchmark": {"traffic_scenarios": ["D(100,100)"], "num_concurrency": [1]},
    }
    return Experiment.model_validate(config | sections)


def problem(space: Space, limit: int = 10, seed: int = 0, **sections: Any) -> Problem:
    """A problem on `space` with at most `limit` launches."""
    optimization = {"max_iterations": limit, "seed": seed} | sections.pop("optimization", {})
    return Problem(space, experiment(optimization=optimization, **sections))


def rules(
    only_when: Mapping[str, str] | None = None, constraints: Mapping[str, str] | None = None, gpus: int | None = None
) -> Rules:
    """Rules from their texts."""
    conditions = {name: parse(text) for name, text in (only_when or {}).items()}
    constraint_rules = {name: parse(text) for name, text in (constraints or {}).items()}
    return Rules({"runtime": "sim", "deployment": "process", "gpus": gpus}, conditions, constraint_rules)


def seconds(value: float) -> Distribution:
    """A distribution of 30 equal samples."""
    return Distribution(30, value, 0.0, value, value, value, value, value, value, value, value)


def load_point_result(
    point: LoadPoint,
    throughput: float = 100.0,
    e2e: float = 1.0,
    ttft: float = 0.1,
    attainment: Share | None = None,
    littles_law: bool = True,
) -> LoadPointResult:
    """An unjudged result of scenario D(100,100); `throughput` counts prompt and output tokens."""
    metrics = Metrics(
        requests=attainment.n if attainment else 100,
        ttft=seconds(ttft),
        ttfo=None,
        tpot=seconds((e2e - ttft) / 99),
        itl=None,
        chunk_gap=None,
        e2e=seconds(e2e),
        interactivity=99 / max(e2e - ttft, 1e-9),
        output_throughput=throughput / 2,
        throughput=throughput,
        request_throughput=throughput / 200,
        goodput=throughput / 200 * (attainment.value if attainment else 1.0),
        token_goodput=throughput / 2,
        attainment=attainment,
        errors={},
        ttft_from_schedule=seconds(ttft),
        e2e_from_schedule=seconds(e2e),
    )
    checks = (Check("littles-law", 1.0, "within 10% of 1", littles_law),)
    return LoadPointResult(point, "simulated", metrics, checks)
