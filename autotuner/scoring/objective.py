"""The objectives of a search: how each is computed from metrics, its unit and direction, and its utility."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from autotuner.core import Distribution, Metrics

Direction = Literal["min", "max"]
MetricFunction = Callable[[Metrics, int, float | None], float | None]


@dataclass(frozen=True)
class Objective:
    """An objective to minimise or maximise.

    `value(metrics, gpus, price)` is None where the load point gave no such metric; `gpus` is the number of
    GPUs of one server, `price` the cost of one GPU-hour or None. With `at_equal_load` candidates are
    compared over the same load points, else each at its best one. `metric` is the field of Metrics that
    `value` is computed from. `comparison_phrase` stands after a ratio: "1.2x <faster than> the defaults".
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
        """The unit of `value`; that of a cost depends on whether a price is given."""
        return self.unit_for_price(price)

    def interval(self, metrics: Metrics, gpus: int, price: float | None) -> tuple[float, float] | None:
        """The 95% interval of `value` within one launch; None where it has no upper limit or is not known."""
        metric = getattr(metrics, self.metric)
        if isinstance(metric, Distribution):
            lower, upper = metric.intervals.get("mean", (0.0, None))
            return None if upper is None else (lower, upper)
        value, interval = self.value(metrics, gpus, price), metrics.intervals.get(self.metric)
        if interval is None or not value or not interval[0]:
            return None
        lower, upper = (limit / metric for limit in interval)
        return (value * lower, value * upper) if self.direction == "max" else (value / upper, value / lower)

    def utility(self, value: float) -> float:
        """`value` or, where lower is better, its reciprocal: positive, and higher is better."""
        return value if self.direction == "max" else 1 / value


def output_token_cost(metrics: Metrics, gpus: int, price: float | None) -> float | None:
    """Cost of a million output tokens in currency, or in GPU-seconds where no price is given."""
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
    """The unit of `output_token_cost`."""
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
