"""Simulated worlds to compare search strategies in: 40 candidates each, operator costs unlike the predicted ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from autotuner.experiment import Experiment

LADDER = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""The concurrencies of a grid."""
SKEWS = (0.12, 0.25, 0.45)
START_SECONDS = 120.0
WINDOW, WARMUP = 30.0, 20.0
"""Seconds; a request takes up to 20, and a closed loop needs as long to reach steady state."""

BATCHED = [1024, 2048, 4096, 8192, 16384]
RUNNING = [32, 64, 128, 256, 512]

SPACES: Mapping[str, Mapping[str, list[Any]]] = {
    "cache type": {"max-batched-tokens": BATCHED, "kv-cache-dtype": ["auto", "fp8"]},
    "block size": {"max-running-requests": RUNNING, "kv-block-size": [16, 32]},
    "chunked prefill": {"max-batched-tokens": BATCHED, "enable-chunked-prefill": [True, False]},
    "graphs": {"max-running-requests": RUNNING, "cuda-graph": [True, False]},
}
"""Ten combinations each, times four tensor-parallel sizes."""

SIZES = {
    "llama-3.1-8b": ("tp-size", [1, 2, 4, 8]),
    "qwen3-32b": ("tp-size", [1, 2, 4, 8]),
    "qwen3-30b-a3b": ("tp-size", [1, 2, 4, 8]),
    "mixtral-8x7b": ("tp-size", [2, 4, 8]),
    "llama-3.1-70b": ("tp-size", [2, 4, 8]),
}
GPUS = ("h100_sxm", "a100_sxm", "h200_sxm")
SCENARIOS = (
    "N(1000,300)/(200,60)",
    "U(100,4000)/(50,400)",
    "N(300,100)/(600,150)",
    "N(4000,800)/(250,80)",
    "P(1500,500,200)",
)
TARGETS = (
    {"ttft": {"threshold": 1.0}, "tpot": {"threshold": 0.03}},
    {"ttft": {"threshold": 3.0}, "tpot": {"threshold": 0.06}},
    {"ttft": {"p95": {"threshold": 2.0}}, "tpot": {"threshold": 0.04}},
    {"latency": {"threshold": 20.0}},
)


@dataclass(frozen=True)
class World:
    """A model on a GPU type with traffic, targets, a search space, and the log-normal skew of its true costs."""

    number: int
    model: str
    gpu: str
    scenario: str
    targets: int
    space: str
    skew: float

    @property
    def name(self) -> str:
        return f"{self.number:03d} {self.model} {self.gpu} {self.scenario} targets {self.targets} {self.space}"

    @property
    def parameters(self) -> dict[str, list[Any]]:
        """40 combinations."""
        size, values = SIZES[self.model]
        rest = dict(SPACES[self.space])
        if len(values) == 3:  # 3 x 10, and 10 more by a second cache size of the largest two
            return {size: values[:2], **rest, "mem-fraction-static": [0.85, 0.93]}
        return {size: values, **rest}

    @property
    def flags(self) -> tuple[str, ...]:
        """Engine arguments of every candidate; without shared prefixes hashing prompts would only cost time."""
        caching = () if self.scenario.startswith("P(") else ("--no-prefix-caching",)
        return ("--load-seconds", str(START_SECONDS), *caching)

    def experiment(self, strategy: str = "grid_search", launches: int = 40, **benchmark: Any) -> Experiment:
        """The search problem with at most `launches` launches; `benchmark` overrides the section of that name."""
        config: dict[str, Any] = {
            "task_name": f"world {self.number}",
            "model": {"id_or_path": self.model},
            "base_runtime": "sim",
            "runtime": {"extra_args": self.flags},
            "parameters": self.parameters,
            "optimization": {
                "strategy": strategy,
                "evaluator": "simulated",
                "objective": "maximize_throughput",
                "max_iterations": launches,
                "timeout_per_iteration": 1e6,
                "seed": self.number,
            },
            "benchmark": {
                "traffic_scenarios": [self.scenario],
                "num_concurrency": LADDER,
                "duration": WINDOW,
                "warmup": WARMUP,
                "request_timeout": 120.0,
                "seed": self.number,
                **benchmark,
            },
            "slo": TARGETS[self.targets],
            "simulate": {"gpu": self.gpu, "skew": {"seed": self.number, "sd": self.skew}},
        }
        return Experiment.model_validate(config)


def worlds(count: int) -> list[World]:
    """The first `count` worlds; each of the three skews occurs in a third of them."""
    # coprime periods, so that every value meets every value of the other lists
    axes = zip(
        cycle(SIZES),
        cycle((0, 0, 1, 2)),
        cycle((0, 1, 2, 3, 4, 1, 0)),
        cycle((0, 1, 2, 3, 0, 1, 2, 1, 0, 3, 1)),
        cycle((*SPACES, "cache type", "block size", "chunked prefill", "block size", "cache type")),
        cycle(SKEWS),
        strict=False,
    )
    return [
        World(number, model, GPUS[gpu], SCENARIOS[scenario], targets, space, skew)
        for number, (model, gpu, scenario, targets, space, skew) in enumerate(islice(axes, count))
    ]
