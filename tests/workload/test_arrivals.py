from __future__ import annotations

import statistics
from itertools import islice, pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.errors import ConfigError
from autotuner.workload import arrivals


def offsets(rate: float, arrival: str, number: int = 5000, seed: int = 1) -> list[float]:
    return list(islice(arrivals.schedule(rate, arrival, Random(seed)), number))


def gaps(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


def test_constant_arrivals_do_not_drift():
    assert offsets(3.0, "constant")[3000] == 1000.0


@pytest.mark.parametrize(("arrival", "variation"), [("poisson", 1.0), ("gamma:0.25", 2.0), ("gamma:4", 0.5)])
def test_arrivals_have_the_rate_and_the_burstiness_that_were_asked_for(arrival: str, variation: float):
    found = gaps(offsets(10.0, arrival, 20_000))
    mean = statistics.fmean(found)
    assert mean == pytest.approx(0.1, rel=0.05)
    assert statistics.stdev(found) / mean == pytest.approx(variation, rel=0.1)


@given(st.sampled_from(["constant", "poisson", "gamma:0.3"]), st.floats(0.01, 1000), st.integers(0, 99))
def test_arrivals_never_go_back_and_repeat_with_their_seed(arrival: str, rate: float, seed: int):
    times = offsets(rate, arrival, 50, seed)
    assert times == sorted(times)
    assert times[0] >= 0
    assert times == offsets(rate, arrival, 50, seed)


@pytest.mark.parametrize(
    "arrival", ["posson", "gamma", "gamma:0", "gamma:-1", "gamma:x", "gamma:inf", "constant:2", ""]
)
def test_an_unknown_arrival_is_refused(arrival: str):
    with pytest.raises(ConfigError):
        arrivals.schedule(1.0, arrival, Random(0))


def test_a_misspelt_arrival_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'poisson'"):
        arrivals.schedule(1.0, "posson", Random(0))


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_must_be_above_zero(rate: float):
    with pytest.raises(ConfigError, match="rate"):
        arrivals.schedule(rate, "constant", Random(0))
