from __future__ import annotations

import math
from dataclasses import replace

import pytest

from autotuner.errors import ConfigError
from autotuner.planning.question import LatencyTarget, Question
from autotuner.planning.sizing import fewest_gpus
from autotuner.predict.open_loop import OpenLoopModel
from autotuner.predict.traffic import Traffic

QUESTION = Question("qwen3-8b", Traffic(2000, 300), target=LatencyTarget(1.0, 0.03))
PRICES = {"h100_sxm": 2.0, "h200_sxm": 3.0}


def test_fewest_gpus_come_first_where_no_price_is_known():
    options = [option for option in fewest_gpus(QUESTION, ["h100", "h200"], 50) if option.meets_target]
    assert [option.gpus for option in options] == sorted(option.gpus for option in options)


def test_the_cheapest_comes_first_where_all_prices_are_known():
    options = fewest_gpus(replace(QUESTION, prices=PRICES), ["h100", "h200"], 50)
    feasible = [option for option in options if option.meets_target]
    prices = [option.price for option in feasible if option.price is not None]
    assert len(prices) == len(feasible)
    assert prices == sorted(prices)


def test_the_recommended_option_sustains_the_rate_within_the_targets():
    options = fewest_gpus(QUESTION, ["h100"], 50)
    option = next(option for option in options if option.mode == "aggregated" and option.meets_target)
    one = QUESTION.load_curve("h100", option.serving.layout)
    prediction = OpenLoopModel(one).at_rate(50 / option.serving.workers)
    assert prediction.ttft <= 1.0
    assert prediction.tpot <= 0.03
    assert option.performance.requests == 50


def test_one_replica_fewer_would_miss_the_target_or_saturate():
    options = fewest_gpus(QUESTION, ["h100"], 50)
    option = next(option for option in options if option.mode == "aggregated" and option.meets_target)
    one = QUESTION.load_curve("h100", option.serving.layout)
    ttft, tpot, _, _ = OpenLoopModel(one).mean_times(50 / (option.serving.workers - 1))
    assert ttft > 1.0 or tpot > 0.0295 or math.isinf(ttft)


def test_ten_times_the_rate_takes_more_gpus():
    few, many = (fewest_gpus(QUESTION, ["h100"], rate)[0].gpus for rate in (20, 200))
    assert 5 * few < many < 15 * few


def test_where_no_target_can_be_met_the_nearest_is_one_that_could_be_built():
    options = fewest_gpus(replace(QUESTION, target=LatencyTarget(0.001, 0.03)), ["h100"], 50)
    assert not any(option.meets_target for option in options)
    assert options[0].binding == "ttft"
    assert options[0].gpus < 5000


def test_a_gpu_type_that_cannot_hold_the_model_is_left_out():
    question = Question("llama-3.1-70b", Traffic(1000, 100), target=LatencyTarget(60.0))
    options = fewest_gpus(question, ["h100", "rtx_4090"], 1)
    assert {option.serving.gpu.name for option in options} >= {"h100_sxm"}
    with pytest.raises(ConfigError):
        fewest_gpus(question, ["h100"], 0)
