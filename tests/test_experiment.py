"""What a configuration may say of the load."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from autotuner.experiment import Benchmark


def benchmark(**options: Any) -> Benchmark:
    return Benchmark.model_validate({"traffic_scenarios": ["D(5,5)"], "request_rates": [1.0], **options})


@pytest.mark.parametrize(
    "arrival", ["poisson", "constant", "gamma:0.5", "gamma:2", "ramp:2-10", "ramp:.5-1.5", "trace"]
)
def test_every_kind_of_arrival_is_taken(arrival: str):
    assert benchmark(arrival=arrival).arrival == arrival


@pytest.mark.parametrize("arrival", ["posson", "gamma", "gamma:0", "gamma:x", "ramp:5", "ramp:0-5", "trace:1", ""])
def test_an_arrival_that_is_none_is_refused_with_the_kinds_there_are(arrival: str):
    with pytest.raises(ValidationError, match="must be constant, poisson, gamma:SHAPE, ramp:START-END or trace"):
        benchmark(arrival=arrival)


def test_a_ramp_is_not_cut_by_a_number_of_requests():
    with pytest.raises(ValidationError, match="takes the whole window"):
        benchmark(arrival="ramp:1-2", max_requests=10)


def test_a_trace_is_replayed_at_a_rate():
    with pytest.raises(ValidationError, match="give `request_rates`"):
        benchmark(arrival="trace", request_rates=[], num_concurrency=[1])


def test_each_trace_has_a_load_point_of_its_own_rate_beside_those_that_are_named():
    traces = {"traffic_scenarios": ["file:a", "file:b"], "request_rates": ["trace", 2]}
    recorded = [{"requests": 11, "seconds": 2.0}, {"requests": 5, "seconds": 2.0}]
    load = benchmark(arrival="trace", recorded=recorded, **traces)
    assert load.numeric_rates == (2.0,)
    assert [load.rates_for(place) for place in (0, 1)] == [{2.0, 5.0}, {2.0}]


@pytest.mark.parametrize("options", [{"arrival": "trace"}, {"recorded": [{"requests": 2, "seconds": 1.0}]}])
def test_a_traces_own_rate_needs_the_trace(options: dict[str, Any]):
    with pytest.raises(ValidationError, match="needs the arrival 'trace' and one entry of recorded"):
        benchmark(request_rates=["trace"], **options)


def test_a_rate_may_be_written_as_text():
    assert benchmark(request_rates=["4", 2]).request_rates == (4.0, 2.0)


@pytest.mark.parametrize("rate", ["tracy", 0, -1.0, float("inf"), float("nan"), [1], None])
def test_a_rate_that_is_none_is_refused(rate: Any):
    with pytest.raises(ValidationError, match="a number above 0, or trace for a trace's own"):
        benchmark(request_rates=[rate])


@pytest.mark.parametrize("name", ["max_in_flight", "workers"])
def test_bounds_are_at_least_one(name: str):
    assert getattr(benchmark(**{name: 1}), name) == 1
    with pytest.raises(ValidationError):
        benchmark(**{name: 0})
