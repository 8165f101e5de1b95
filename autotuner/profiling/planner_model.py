"""How the SLA planner of Dynamo 0.9 and 1.0 interpolates a profile and computes replicas, reproduced offline.

TTFT and prefill throughput are cubic in the prompt length, clamped to the measured lengths. ITL and decode throughput
are interpolated cubically onto a grid of 100 x 100 cells over KV usage 0 to 1 and context 0 to the longest, holes
filled by the nearest point, and looked up in the nearest cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotuner.profiling.planner_profile import PlannerProfile

GRID_CELLS = 100


@dataclass(frozen=True)
class PlannerInterpolation:
    """The planner's view of a profile; milliseconds and tokens/s per GPU."""

    profile: PlannerProfile

    def ttft(self, isl: float) -> float:
        """TTFT in milliseconds of a prompt of `isl` tokens."""
        return float(self._ttft_curve(self._clamped(isl)))

    def prefill_throughput(self, isl: float) -> float:
        """Prompt tokens/s per GPU at `isl` tokens."""
        return float(self._prefill_curve(self._clamped(isl)))

    def best_decode(self, itl: float, context_length: float) -> tuple[float, float, float]:
        """(Tokens/s per GPU, ITL in ms, KV usage) at the highest KV usage whose ITL is within `itl` ms.

        The emptiest cell where none is.
        """
        row = self._context_cell(context_length)
        within = np.flatnonzero(self._itl_grid[row] <= itl)
        cell = int(within[-1]) if len(within) else 0
        usage = cell / (GRID_CELLS - 1)
        return float(self._throughput_grid[row, cell]), float(self._itl_grid[row, cell]), usage

    def _clamped(self, isl: float) -> float:
        lengths = self.profile.prefill_isl
        return float(min(max(isl, lengths.min()), lengths.max()))

    @cached_property
    def _ttft_curve(self) -> Any:
        return _cubic(self.profile.prefill_isl, self.profile.prefill_ttft)

    @cached_property
    def _prefill_curve(self) -> Any:
        return _cubic(self.profile.prefill_isl, self.profile.prefill_thpt_per_gpu)

    def _context_cell(self, context_length: float) -> int:
        cell_size = self.profile.y_context_length.max() / (GRID_CELLS - 1)
        return int(np.clip(np.round(context_length / cell_size), 0, GRID_CELLS - 1))

    @cached_property
    def _itl_grid(self) -> NDArray[np.float64]:
        return self._grid(self.profile.z_itl)

    @cached_property
    def _throughput_grid(self) -> NDArray[np.float64]:
        return self._grid(self.profile.z_thpt_per_gpu)

    def _grid(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values by [context cell, KV usage cell]."""
        from scipy.interpolate import griddata

        points = (self.profile.x_kv_usage, self.profile.y_context_length)
        usages = np.linspace(0, 1, GRID_CELLS)
        contexts = np.linspace(0, self.profile.y_context_length.max(), GRID_CELLS)
        cells = tuple(np.meshgrid(usages, contexts))
        grid: NDArray[np.float64] = griddata(points, values, cells, method="cubic")
        holes = np.isnan(grid)
        if holes.any():
            grid[holes] = griddata(points, values, cells, method="nearest")[holes]
        return grid


def _cubic(xs: NDArray[np.float64], ys: NDArray[np.float64]) -> Any:
    from scipy.interpolate import interp1d

    return interp1d(xs, ys, kind="cubic")


@dataclass(frozen=True)
class PlannerLoad:
    """The load and the limits of a replica computation; `itl` in milliseconds, `rate` in requests/s."""

    rate: float
    isl: float
    osl: float
    itl: float
    prefill_gpus: int
    decode_gpus: int
    max_gpus: int | None = None
    min_endpoint: int = 1


def planner_replicas(interpolation: PlannerInterpolation, load: PlannerLoad) -> tuple[int, int]:
    """(Prefill, decode) replicas as the 0.9 planner computes them, without its corrections by observed latencies."""
    prefill_capacity = interpolation.prefill_throughput(load.isl)
    decode_capacity, _, _ = interpolation.best_decode(load.itl, load.isl + load.osl / 2)
    prefill = math.ceil(load.rate * load.isl / prefill_capacity / load.prefill_gpus)
    decode = math.ceil(load.rate * load.osl / decode_capacity / load.decode_gpus)
    prefill, decode = max(prefill, load.min_endpoint), max(decode, load.min_endpoint)
    needed = prefill * load.prefill_gpus + decode * load.decode_gpus
    if load.max_gpus is not None and needed > load.max_gpus:
        prefill = max(load.min_endpoint, round(prefill * (load.max_gpus / needed)))
        remaining = (load.max_gpus - prefill * load.prefill_gpus) / load.decode_gpus
        decode = max(load.min_endpoint, round(remaining))
    return prefill, decode
