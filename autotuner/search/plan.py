"""What a run will cost, told before anything starts."""

from __future__ import annotations

from dataclasses import dataclass

from autotuner.core import Candidate, Workload
from autotuner.search.space import Space


@dataclass(frozen=True)
class Plan:
    """The launches a run will make at most, and their estimated time in seconds and GPU-hours.

    `start_seconds` is what one engine start is taken to last; `gpus` the GPUs of each candidate.
    `at_most` says that the search ends earlier where it can.
    """

    space: Space
    candidates: tuple[Candidate, ...]
    workload: Workload
    start_seconds: float
    gpus: tuple[int, ...]
    at_most: bool = False

    @property
    def launch_seconds(self) -> float:
        """One launch: the engine's start, then warm-up and window of every load point."""
        return self.start_seconds + self.load_seconds

    @property
    def load_seconds(self) -> float:
        """Warm-up and window of every load point."""
        return len(self.workload.load_points) * (self.workload.warmup + self.workload.duration)

    @property
    def seconds(self) -> float:
        """All launches, one after another."""
        return len(self.candidates) * self.launch_seconds

    @property
    def gpu_hours(self) -> float:
        """GPUs held times the hours they are held."""
        return sum(self.gpus) * self.launch_seconds / 3600
