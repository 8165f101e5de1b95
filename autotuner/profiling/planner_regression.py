"""How the SLA planner of Dynamo 1.4 to 1.6 fits a profile and computes replicas, reproduced offline.

TTFT is a straight line over the prompt's tokens, ITL a plane over the requests in flight and the tokens in their KV
cache, both by ordinary least squares. A worker's rate is that of one prompt after the other, and of the largest batch
within the ITL target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from autotuner.errors import ConfigError, NoFeasibleError, pluralize
from autotuner.profiling.planner_model import PlannerLoad
from autotuner.profiling.planner_profile import PlannerProfile

MAX_SAMPLES, SAMPLE_CELLS = 64, 16
"""Defaults of the planner, which forgets points in the fullest of the cells when they are too many."""
MIN_SAMPLES = 5
SHORTEST_SECONDS = 1e-6
Array = NDArray[np.float64]


@dataclass(frozen=True)
class PlannerRegression:
    """The planner's view of a profile; times in milliseconds, rates in requests/s of one worker."""

    profile: PlannerProfile

    def prefill_rate(self, isl: float) -> tuple[float, float]:
        """(Requests/s, TTFT in ms) of a prefill worker with prompts of `isl` tokens, one after the other."""
        seconds = self._ttft_line.seconds(isl)
        return 1 / seconds, 1000 * seconds

    def decode_rate(self, itl: float, isl: float, osl: float) -> tuple[float, float, int]:
        """(Requests/s, ITL in ms, requests in flight) of a decode worker with the most requests within `itl` ms.

        With one request where even that misses the target.
        """
        context = isl + osl / 2
        low, high = 1, max(1, int(self.profile.max_kv_tokens / context))
        while low < high:
            middle = (low + high + 1) // 2
            if 1000 * self._itl_plane.seconds(middle, middle * context) <= itl:
                low = middle
            else:
                high = middle - 1
        seconds = self._itl_plane.seconds(low, low * context)
        return low / (osl * seconds), 1000 * seconds, low

    @cached_property
    def _ttft_line(self) -> LinearTime:
        lengths = self.profile.prefill_isl[:, None]
        return LinearTime.fit("TTFT", lengths, self.profile.prefill_ttft / 1000)

    @cached_property
    def _itl_plane(self) -> LinearTime:
        profile = self.profile
        cached_tokens = np.rint(profile.x_kv_usage * profile.max_kv_tokens)
        features = np.stack([np.maximum(1, profile.requests), cached_tokens], axis=1)
        return LinearTime.fit("ITL", features, profile.z_itl / 1000, may_ignore_first=True)


@dataclass(frozen=True)
class LinearTime:
    """Seconds as a linear function of load, such as tokens."""

    intercept: float
    slopes: tuple[float, ...]

    @classmethod
    def fit(cls, name: str, features: Array, seconds: Array, *, may_ignore_first: bool = False) -> LinearTime:
        """Fit rows of `features`; a negative first slope becomes 0 if it may, without a new fit, as in the planner.

        ConfigError if the planner refuses the fit: with too few points, or any other negative slope.
        """
        if len(seconds) < MIN_SAMPLES:
            raise ConfigError(
                f"Dynamo's planner fits no {name} to {len(seconds)} points.",
                why=f"It needs {MIN_SAMPLES}.",
                remedy="Profile with more points.",
            )
        rows = retained_samples(features)
        samples, times = features[rows], seconds[rows]
        means = samples.mean(axis=0)
        slopes, *_ = np.linalg.lstsq(samples - means, times - times.mean(), rcond=None)
        intercept = float(times.mean() - means @ slopes)
        if may_ignore_first:
            slopes[0] = max(0.0, slopes[0])
        if (slopes < 0).any():
            raise ConfigError(
                f"Dynamo's planner refuses this profile: its fitted {name} falls with the load.",
                why="A slope of its regression is negative, and it would not scale the workers.",
                remedy="Look at the points with `autotune sla check`, and measure the outlying ones again.",
            )
        return cls(intercept, tuple(map(float, slopes)))

    def seconds(self, *load: float) -> float:
        """The time at a load, above 0."""
        slope_terms = (slope * value for slope, value in zip(self.slopes, load, strict=True))
        return max(SHORTEST_SECONDS, self.intercept + sum(slope_terms))


def retained_samples(features: Array) -> list[int]:
    """The rows that the planner keeps of those it reads in order, at most `MAX_SAMPLES`.

    It divides the range of each column seen so far into equal cells and forgets the oldest row of the fullest cell.
    """
    if len(features) <= MAX_SAMPLES:
        return list(range(len(features)))
    per_axis = SAMPLE_CELLS if features.shape[1] == 1 else math.isqrt(SAMPLE_CELLS)
    low, high = features[0].copy(), features[0].copy()

    def cell(row: int) -> tuple[int, ...]:
        width = np.where(high > low, high - low, np.inf)
        shares = (features[row] - low) / width
        return tuple(int(index) for index in np.clip((shares * per_axis).astype(int), 0, per_axis - 1))

    cells: dict[tuple[int, ...], list[int]] = {}
    for row in range(len(features)):
        if (features[row] < low).any() or (features[row] > high).any():
            low, high = np.minimum(low, features[row]), np.maximum(high, features[row])
            cells = _grouped([member for members in cells.values() for member in members], cell)
        cells.setdefault(cell(row), []).append(row)
        if sum(map(len, cells.values())) > MAX_SAMPLES:
            max(cells.values(), key=len).pop(0)
    return [member for members in cells.values() for member in members]


def _grouped(rows: Sequence[int], cell: Callable[[int], tuple[int, ...]]) -> dict[tuple[int, ...], list[int]]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for row in rows:
        groups.setdefault(cell(row), []).append(row)
    return groups


def regression_replicas(regression: PlannerRegression, load: PlannerLoad) -> tuple[int, int]:
    """(Prefill, decode) replicas that the 1.6 planner arrives at for a steady load.

    In one adjustment it adds or removes 8 at most. NoFeasibleError if the GPU budget holds not one of each.
    """
    prefill_rate, _ = regression.prefill_rate(load.isl)
    decode_rate, _, _ = regression.decode_rate(load.itl, load.isl, load.osl)
    prefill = max(load.min_endpoint, math.ceil(load.rate / prefill_rate))
    decode = max(load.min_endpoint, math.ceil(load.rate / decode_rate))
    needed = prefill * load.prefill_gpus + decode * load.decode_gpus
    if load.max_gpus is None or needed <= load.max_gpus:
        return prefill, decode
    least = load.min_endpoint * (load.prefill_gpus + load.decode_gpus)
    if load.max_gpus < least:
        raise NoFeasibleError(
            f"{pluralize(load.max_gpus, 'GPU')} cannot hold a prefill and a decode worker.",
            why=f"A prefill worker has {load.prefill_gpus} GPUs, a decode worker {load.decode_gpus}.",
            remedy=f"Give at least --total-gpus {least}.",
        )
    most = (load.max_gpus - load.min_endpoint * load.decode_gpus) // load.prefill_gpus
    prefill = max(load.min_endpoint, min(most, math.floor(prefill * (load.max_gpus / needed))))
    decode = max(load.min_endpoint, (load.max_gpus - prefill * load.prefill_gpus) // load.decode_gpus)
    return prefill, decode
