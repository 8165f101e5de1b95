"""The load that servers get where what happens is tested, and not how fast."""

from __future__ import annotations

from autotuner.experiment import Benchmark

SHORT_LOAD = Benchmark(
    traffic_scenarios=("D(100,50)",),
    num_concurrency=(1, 4),
    duration=120,
    max_duration=120,
    max_requests=12,
    warmup=1,
)
"""Two load points that end after twelve requests each, however long these take on a busy machine."""

SHORT_WINDOWS = ("--max-requests", "12", "--duration", "120", "--max-duration", "120", "--warmup", "1")
"""The same on a command line, for the load points that a profile has."""
