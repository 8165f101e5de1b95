"""What a run optimises: each objective's figure, unit, direction, and its positive utility."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from autotuner.core import Distribution, Metrics

Direction = Literal["min", "max"]
MetricFunction = Callable[[Metrics, int, float | None], float | None]


@dataclass(frozen=True)
class Objective:
    """One goal.

    `value(metrics, gpus, price)` is None where the load point gave no such figure; `gpus` is what
    one server takes, `price` the cost of one GPU for an hour or None. `at_equal_load` says that
    candidates are compared over the same load points instead of each at its best one. `metric` is
    the field of Metrics that it goes by. `comparison` goes between a ratio of utilities and what it compares with.
    """

    name: str
    label: str
    direction: Direction
    value: MetricFunction
    unit_for_price: Callable[[float | None], str]
    metric: Literal["ttft", "tpot", "e2e", "throughput", "output_throughput", "goodput"]
    comparison_phrase: str
    at_equal_load: bool = False

    def unit(self, price: float | None = None) -> str:
        """The unit of `value`, which for a cost depends on whether a price is known."""
        return self.unit_for_price(price)

    def interval(self, metrics: Metrics, gpus: int, price: float | None) -> tuple[float, float] | None:
        """The 95% interval of `value` on one launch; None where it is unbounded or not known."""
        figure = getattr(metrics, self.metric)
        if isinstance(figure, Distribution):
            low, high = figure.intervals.get("mean", (0.0, None))
            return None if high is None else (low, high)
        value, ends = self.value(metrics, gpus, price), metrics.intervals.get(self.metric)
        if ends is None or not value or not ends[0]:
            return None
        low, high = (end / figure for end in ends)
        return (value * low, value * high) if self.direction == "max" else (value / high, value / low)

    def utility(self, value: float) -> float:
        """`value` turned so that higher is better; positive for every positive value."""
        return value if self.direction == "max" else 1 / value


def output_token_cost(metrics: Metrics, gpus: int, price: float | None) -> float | None:
    """Currency, or GPU-seconds where no price is known, for a million output tokens."""
    if metrics.output_throughput <= 0:
        return None
    gpu_seconds = gpus * 1e6 / metrics.output_throughput
    return gpu_seconds if price is None else gpu_seconds * price / 3600


def output_throughput_per_gpu(metrics: Metrics, gpus: int, price: float | None = None) -> float | None:
    """Output tokens per second and GPU."""
    return metrics.output_throughput / gpus or None


def total_throughput_per_gpu(metrics: Metrics, gpus: int, price: float | None = None) -> float | None:
    """Prompt and output tokens per second and GPU."""
    return metrics.throughput / gpus or None


def output_token_cost_unit(price: float | None) -> str:
    """The unit `cost` answers in."""
    return "GPU-s / 1M output tokens" if price is None else "currency / 1M output tokens"


def _positive_mean(distribution: Distribution | None) -> float | None:
    return distribution.mean or None if distribution else None


def _fixed_unit(unit: str) -> Callable[[float | None], str]:
    return lambda price: unit


_ALL_OBJECTIVES = (
    Objective(
        "minimize_latency",
        "mean E2E latency",
        "min",
        lambda m, *_: _positive_mean(m.e2e),
        _fixed_unit("s"),
        "e2e",
        "faster end to end than",
        at_equal_load=True,
    ),
    Objective(
        "minimize_ttft",
        "mean TTFT",
        "min",
        lambda m, *_: _positive_mean(m.ttft),
        _fixed_unit("s"),
        "ttft",
        "faster to the first token than",
        at_equal_load=True,
    ),
    Objective(
        "minimize_tpot",
        "mean TPOT",
        "min",
        lambda m, *_: _positive_mean(m.tpot),
        _fixed_unit("s"),
        "tpot",
        "faster per output token than",
        at_equal_load=True,
    ),
    Objective(
        "maximize_throughput",
        "total throughput per GPU",
        "max",
        total_throughput_per_gpu,
        _fixed_unit("total tokens/s/GPU"),
        "throughput",
        "the total throughput per GPU of",
    ),
    Objective(
        "maximize_goodput",
        "goodput",
        "max",
        lambda m, *_: m.goodput or None,
        _fixed_unit("requests/s"),
        "goodput",
        "the goodput of",
    ),
    Objective(
        "minimize_cost",
        "cost of output tokens",
        "min",
        output_token_cost,
        output_token_cost_unit,
        "output_throughput",
        "cheaper than",
    ),
)
OBJECTIVES: Mapping[str, Objective] = {objective.name: objective for objective in _ALL_OBJECTIVES}
