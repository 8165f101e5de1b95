"""The Python functions of predictions and plans: the figures of the command line."""

from __future__ import annotations

from typing import Any

import pytest

import autotuner
from autotuner import Layout, Software
from autotuner.planning.question import LatencyTarget, Question
from autotuner.planning.ranking import rank_options
from autotuner.planning.sizing import fewest_gpus
from autotuner.predict.traffic import Traffic

LOAD: dict[str, Any] = {"isl": 1000, "osl": 200}


def test_a_closed_loop_is_predicted_at_a_concurrency():
    result = autotuner.what_if("qwen3-8b", "h100", concurrency=16, bundled_only=True, **LOAD)
    assert result.source == "predicted"
    prediction = result.prediction
    assert prediction.throughput == pytest.approx(prediction.requests * LOAD["osl"])
    faster = autotuner.what_if("qwen3-8b", "h100", concurrency=16, layout=Layout(tp=2), bundled_only=True, **LOAD)
    assert faster.prediction.tpot < prediction.tpot


def test_an_open_loop_is_predicted_at_a_rate():
    slow = autotuner.at_rate("qwen3-8b", "h100", rate=1.0, bundled_only=True, **LOAD)
    busy = autotuner.at_rate("qwen3-8b", "h100", rate=5.0, software=Software("sglang"), bundled_only=True, **LOAD)
    assert slow.requests == 1.0
    assert busy.in_flight > slow.in_flight


def test_ranking_and_sizing_are_those_of_the_planning_room():
    question = Question("qwen3-8b", Traffic(**LOAD), target=LatencyTarget(ttft=1.0, tpot=0.03))
    ranked = autotuner.rank_deployments("qwen3-8b", "h100", total_gpus=2, ttft=1.0, tpot=0.03, **LOAD)
    assert ranked == rank_options(question, "h100", total_gpus=2)
    sized = autotuner.fewest_gpus("qwen3-8b", ["h100"], rate=4.0, ttft=1.0, tpot=0.03, **LOAD)
    assert sized == fewest_gpus(question, ["h100"], 4.0)
