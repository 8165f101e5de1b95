"""The objectives of a search: each says how it is computed, measured or predicted, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from autotuner.core import Distribution, Metrics

Direction = Literal["min", "max"]


@dataclass(frozen=True)
class PredictedMetrics:
    """The fields of Metrics that objectives are computed from, predicted; latencies are means in seconds."""

    ttft: float
    tpot: float
    e2e: float
    throughput: float
    output_throughput: float
    goodput: float


def _as_is(metric: float, gpus: int, price: float | None) -> float:
    return metric


def _per_gpu(metric: float, gpus: int, price: float | None) -> float:
    return metric / gpus


def _cost_of_a_million(tokens_per_second: float, gpus: int, price: float | None) -> float:
    """Cost of a million tokens in currency, or in GPU-seconds where no price is given."""
    gpu_seconds = gpus * 1e6 / tokens_per_second
    return gpu_seconds if price is None else gpu_seconds * price / 3600


@dataclass(frozen=True, kw_only=True)
class Objective:
    """An objective to minimise or maximise.

    It is `of_metric(metric, gpus, price)`, where `metric` is a field of Metrics, of a latency its mean, `gpus`
    the number of GPUs of one server and `price` the cost of one GPU-hour or None. With `at_equal_load`
    candidates are compared over the same load points, else each at its best one. `description` completes
    "Objective: NAME, ..."; `comparison_phrase` stands after a ratio: "1.2x <faster than> the defaults". An
    objective that uses a price has the unit and description `unpriced` where none is given. A table shows
    the value times `column_scale` under `column_title`, the unit where that is empty.
    """

    name: str
    label: str
    description: str
    direction: Direction
    metric: Literal["ttft", "tpot", "e2e", "throughput", "output_throughput", "goodput"]
    comparison_phrase: str
    unit_with_price: str
    of_metric: Callable[[float, int, float | None], float] = _as_is
    at_equal_load: bool = False
    is_per_gpu: bool = False
    needs_slo: bool = False
    unpriced: tuple[str, str] | None = None
    column_title: str = ""
    column_scale: float = 1.0

    @property
    def uses_price(self) -> bool:
        """Whether the value depends on the price of a GPU-hour."""
        return self.unpriced is not None

    def unit(self, price: float | None = None) -> str:
        """The unit of `value`."""
        return self.unpriced[0] if self.unpriced and price is None else self.unit_with_price

    def describe(self, price: float | None) -> str:
        """What is optimized, in words."""
        return self.unpriced[1] if self.unpriced and price is None else self.description

    def value(self, metrics: Metrics | PredictedMetrics, gpus: int, price: float | None = None) -> float | None:
        """The value at a load point; None where it gave no such metric."""
        metric: Distribution | float | None = getattr(metrics, self.metric)
        number = metric.mean if isinstance(metric, Distribution) else metric
        return self.of_metric(number, gpus, price) if number else None

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


THROUGHPUT = Objective(
    name="maximize_throughput",
    label="total throughput per GPU",
    description="total (prompt + output) tokens/s per GPU",
    direction="max",
    metric="throughput",
    of_metric=_per_gpu,
    comparison_phrase="the total throughput per GPU of",
    unit_with_price="total tokens/s/GPU",
    is_per_gpu=True,
)
COST = Objective(
    name="minimize_cost",
    label="cost of output tokens",
    description="the price of a million output tokens",
    direction="min",
    metric="output_throughput",
    of_metric=_cost_of_a_million,
    comparison_phrase="cheaper than",
    unit_with_price="currency / 1M output tokens",
    is_per_gpu=True,
    unpriced=("GPU-s / 1M output tokens", "the GPU-seconds of a million output tokens"),
)
_ALL_OBJECTIVES = (
    Objective(
        name="minimize_latency",
        label="mean E2E latency",
        description="the mean end-to-end latency",
        direction="min",
        metric="e2e",
        comparison_phrase="faster end to end than",
        unit_with_price="s",
        at_equal_load=True,
        column_title="E2E s",
    ),
    Objective(
        name="minimize_ttft",
        label="mean TTFT",
        description="the mean time to first token",
        direction="min",
        metric="ttft",
        comparison_phrase="faster to the first token than",
        unit_with_price="s",
        at_equal_load=True,
        column_title="TTFT ms",
        column_scale=1e3,
    ),
    Objective(
        name="minimize_tpot",
        label="mean TPOT",
        description="the mean time per output token",
        direction="min",
        metric="tpot",
        comparison_phrase="faster per output token than",
        unit_with_price="s",
        at_equal_load=True,
        column_title="TPOT ms",
        column_scale=1e3,
    ),
    THROUGHPUT,
    Objective(
        name="maximize_goodput",
        label="goodput",
        description="requests/s of one server that meet the targets",
        direction="max",
        metric="goodput",
        comparison_phrase="the goodput of",
        unit_with_price="requests/s",
        needs_slo=True,
        column_title="good requests/s",
    ),
    COST,
)
OBJECTIVES: Mapping[str, Objective] = {objective.name: objective for objective in _ALL_OBJECTIVES}


def output_throughput_per_gpu(metrics: Metrics, gpus: int, price: float | None = None) -> float | None:
    """Output tokens per second and GPU."""
    return metrics.output_throughput / gpus or None
