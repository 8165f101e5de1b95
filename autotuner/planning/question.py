"""What is asked of planning: a model and its traffic, the engine software, latency targets and prices."""

from __future__ import annotations

from dataclasses import dataclass, field

from autotuner.planning.cost import Prices, hourly_price
from autotuner.planning.serving_option import ServingOption, WorkerPool
from autotuner.predict.layout import Layout
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.performance import Performance
from autotuner.predict.traffic import Software, Traffic


@dataclass(frozen=True, slots=True)
class LatencyTarget:
    """Upper bounds on mean TTFT and mean TPOT in seconds; None is no target."""

    ttft: float | None = None
    tpot: float | None = None

    def largest_ratio(self, performance: Performance) -> tuple[float, str]:
        """The largest ratio of a latency to its target, and which latency; 0 without a target."""
        ratios = [
            (time / target, name)
            for name, time, target in (("ttft", performance.ttft, self.ttft), ("tpot", performance.tpot, self.tpot))
            if target is not None
        ]
        return max(ratios, default=(0.0, ""))

    @property
    def is_set(self) -> bool:
        return self.ttft is not None or self.tpot is not None

    def __str__(self) -> str:
        terms = (("ttft", self.ttft), ("tpot", self.tpot))
        return ",".join(f"{name}={value:g}" for name, value in terms if value is not None)


@dataclass(frozen=True, slots=True)
class Question:
    """The model to serve, its traffic, and what is wanted.

    Decode workers of disaggregated serving stand on `decode_gpu` where it is given, and then nothing is
    aggregated. `bundled_only` ignores what was measured and calibrated on this machine.
    """

    model: str
    traffic: Traffic
    software: Software = field(default_factory=Software)
    target: LatencyTarget = field(default_factory=LatencyTarget)
    prices: Prices = field(default_factory=dict)
    decode_gpu: str | None = None
    bundled_only: bool = False

    def load_curve(self, gpu: str, layout: Layout) -> LoadCurve:
        """The predictions for one layout; raises ConfigError for what no engine runs."""
        return LoadCurve(self.software.deploy(self.model, gpu, layout), self.traffic, bundled_only=self.bundled_only)

    def option(
        self,
        serving: WorkerPool,
        performance: Performance,
        *,
        prefill: WorkerPool | None = None,
        budget: int | None = None,
        transfer_seconds: float = 0.0,
        source: str = "predicted",
    ) -> ServingOption:
        """These workers with their price, and how far they are from the target; the budget is what they use."""
        pools = (serving,) if prefill is None else (prefill, serving)
        target_ratio, binding = self.target.largest_ratio(performance)
        return ServingOption(
            serving=serving,
            prefill=prefill,
            performance=performance,
            budget=budget or sum(pool.gpus for pool in pools),
            price=hourly_price([(pool.gpu, pool.gpus) for pool in pools], self.prices),
            target_ratio=target_ratio,
            binding=binding,
            transfer_seconds=transfer_seconds,
            source=source,
        )
