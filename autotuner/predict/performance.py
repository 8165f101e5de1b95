"""Latency and throughput of servers at a load."""

from __future__ import annotations

from dataclasses import dataclass

from autotuner.predict.intervals import Interval


@dataclass(frozen=True, slots=True)
class Performance:
    """Means of TTFT and TPOT in seconds with 80% intervals, output tokens/s and requests/s over all GPUs."""

    ttft: float
    tpot: float
    ttft_interval: Interval
    tpot_interval: Interval
    throughput: float
    requests: float

    @property
    def interactivity(self) -> float:
        """Output tokens/s per user."""
        return 1 / self.tpot

    def with_rates(self, throughput: float, requests: float) -> Performance:
        """These latencies with other rates, such as those of several replicas."""
        return Performance(self.ttft, self.tpot, self.ttft_interval, self.tpot_interval, throughput, requests)
