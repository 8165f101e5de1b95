"""When requests arrive in an open loop: absolute offsets, so that lateness never adds up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random

from autotuner.core import LoadPoint, Workload
from autotuner.errors import ConfigError, unknown

ARRIVALS = ("constant", "poisson", "gamma:SHAPE")


def offsets(point: LoadPoint, workload: Workload) -> Iterator[float]:
    """The arrivals of an open loop; equal load points and seeds give equal ones."""
    assert point.rate is not None, "a closed loop has no schedule"
    return schedule(point.rate, workload.arrival, Random(f"{workload.seed} {point} arrivals"))


def schedule(rate: float, arrival: str, rng: Random) -> Iterator[float]:
    """Yield arrival offsets in seconds from 0, without end, at `rate` per second on average.

    `gamma:SHAPE` has gaps of shape SHAPE: below 1 is burstier than Poisson, above 1 smoother.
    """
    if not rate > 0:
        raise ConfigError(f"The request rate {rate:g} is not above 0.")
    kind, _, text = arrival.partition(":")
    if kind == "constant" and not text:
        return _constant(rate)
    if kind == "poisson" and not text:
        return _gamma(rate, 1.0, rng)
    if kind == "gamma":
        return _gamma(rate, _shape(text, arrival), rng)
    raise ConfigError(unknown("arrival", arrival, ARRIVALS))


def _shape(text: str, arrival: str) -> float:
    try:
        shape = float(text)
    except ValueError:
        shape = math.nan
    if not 0 < shape < math.inf:
        raise ConfigError(f"The arrival '{arrival}' needs a shape above 0, as in 'gamma:0.5'.")
    return shape


def _constant(rate: float) -> Iterator[float]:
    number = 0
    while True:
        yield number / rate
        number += 1


def _gamma(rate: float, shape: float, rng: Random) -> Iterator[float]:
    offset = 0.0
    while True:
        offset += rng.gammavariate(shape, 1 / (rate * shape))
        yield offset
