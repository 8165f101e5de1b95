from __future__ import annotations

import math

import pytest

from autotuner.errors import ConfigError
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.open_loop import OpenLoopModel
from autotuner.predict.sizing import fewest_gpus
from autotuner.predict.traffic import LatencyTarget, Software, Traffic

TRAFFIC, TARGET = Traffic(2000, 300), LatencyTarget(1.0, 0.03)
PRICES = {"h100_sxm": 2.0, "h200_sxm": 3.0}


def test_fewest_gpus_come_first_where_no_price_is_known():
    options = fewest_gpus("qwen3-8b", ["h100", "h200"], rate=50, traffic=TRAFFIC, target=TARGET)
    gpu_counts = [option.gpus for option in options if option.meets_target]
    assert gpu_counts == sorted(gpu_counts)


def test_the_cheapest_comes_first_where_all_prices_are_known():
    options = fewest_gpus("qwen3-8b", ["h100", "h200"], rate=50, prices=PRICES, traffic=TRAFFIC, target=TARGET)
    feasible = [option for option in options if option.meets_target]
    prices = [option.price for option in feasible if option.price is not None]
    assert len(prices) == len(feasible)
    assert prices == sorted(prices)


def test_the_recommended_option_sustains_the_rate_within_the_targets():
    options = fewest_gpus("qwen3-8b", ["h100"], rate=50, traffic=TRAFFIC, target=TARGET)
    option = next(option for option in options if option.mode == "aggregated" and option.meets_target)
    one = LoadCurve(Software().deploy("qwen3-8b", "h100", option.serving.layout), TRAFFIC)
    prediction = OpenLoopModel(one).at_rate(50 / option.serving.workers)
    assert prediction.ttft <= 1.0
    assert prediction.tpot <= 0.03
    assert option.requests == 50


def test_one_replica_fewer_would_miss_the_target_or_saturate():
    options = fewest_gpus("qwen3-8b", ["h100"], rate=50, traffic=TRAFFIC, target=TARGET)
    option = next(option for option in options if option.mode == "aggregated" and option.meets_target)
    one = LoadCurve(Software().deploy("qwen3-8b", "h100", option.serving.layout), TRAFFIC)
    ttft, tpot, _, _ = OpenLoopModel(one).mean_times(50 / (option.serving.workers - 1))
    assert ttft > 1.0 or tpot > 0.0295 or math.isinf(ttft)


def test_ten_times_the_rate_takes_more_gpus():
    few, many = (
        fewest_gpus("qwen3-8b", ["h100"], rate=rate, traffic=TRAFFIC, target=TARGET)[0].gpus for rate in (20, 200)
    )
    assert 5 * few < many < 15 * few


def test_where_no_target_can_be_met_the_nearest_is_one_that_could_be_built():
    options = fewest_gpus("qwen3-8b", ["h100"], rate=50, traffic=Traffic(2000, 300), target=LatencyTarget(0.001, 0.03))
    assert not any(option.meets_target for option in options)
    assert options[0].binding == "ttft"
    assert options[0].gpus < 5000


def test_a_gpu_type_that_cannot_hold_the_model_is_left_out():
    options = fewest_gpus(
        "llama-3.1-70b", ["h100", "rtx_4090"], rate=1, traffic=Traffic(1000, 100), target=LatencyTarget(60.0)
    )
    assert {option.serving.gpu.name for option in options} >= {"h100_sxm"}
    with pytest.raises(ConfigError):
        fewest_gpus("llama-3.1-70b", ["h100"], rate=0, traffic=TRAFFIC, target=TARGET)
