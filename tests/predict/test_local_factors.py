from __future__ import annotations

import pytest

from autotuner.errors import ConfigError
from autotuner.predict import local_factors
from autotuner.predict.layout import Layout
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.local_factors import Factors, delete_factors, factors_for, save_factors
from autotuner.predict.open_loop import OpenLoopModel
from autotuner.predict.traffic import Software, Traffic

FACTORS = Factors(1.5, 1.2, 1.0, 6, 2, (0.3, 0.2), (0.05, 0.03), "measured", "2026-11-21", ("runs/a",))


def load_curve(**more) -> LoadCurve:
    return LoadCurve(Software("vllm").deploy("qwen3-8b", "h100", Layout()), Traffic(2000, 200), **more)


def test_factors_are_kept_for_their_engine_and_gpu_alone():
    save_factors({"vllm h100_sxm": FACTORS})
    assert factors_for("vllm", "h100_sxm") == FACTORS
    assert factors_for("vllm", "b200_sxm") is None
    assert delete_factors() is not None
    assert factors_for("vllm", "h100_sxm") is None
    assert delete_factors() is None


def test_later_predictions_apply_them_and_can_leave_them_out():
    save_factors({"vllm h100_sxm": FACTORS})
    here, bundled = load_curve().at_concurrency(16), load_curve(bundled_only=True).at_concurrency(16)
    assert 1.2 < here.tpot / bundled.tpot < 1.5
    assert here.ttft > bundled.ttft
    assert here.ttft_interval.lower < here.ttft < here.ttft_interval.upper
    assert here.requests * (here.ttft + 199 * here.tpot) == pytest.approx(16)


def test_they_lower_the_rate_that_is_sustained():
    bundled = OpenLoopModel(load_curve()).max_rate
    save_factors({"vllm h100_sxm": FACTORS})
    assert bundled / 1.5 <= OpenLoopModel(load_curve()).max_rate < bundled


def test_parts_add_up_to_the_prediction():
    curve = load_curve()
    overhead, prefill, decode, stalls = local_factors.time_parts(curve.at_concurrency(32), curve.single_request)
    assert overhead + prefill == pytest.approx(curve.at_concurrency(32).ttft)
    assert decode + stalls == pytest.approx(curve.at_concurrency(32).tpot)
    assert min(overhead, prefill, decode, stalls) >= 0


@pytest.mark.parametrize("text", ["not json", '{"factors": {"vllm h100_sxm": {}}}', "[]", '{"factors": []}'])
def test_a_file_that_cannot_be_read_says_how_to_start_again(text):
    local_factors.data_folder().mkdir(parents=True)
    (local_factors.data_folder() / local_factors.FACTORS_FILE).write_text(text)
    with pytest.raises(ConfigError, match="calibrate --forget"):
        factors_for("vllm", "h100_sxm")
