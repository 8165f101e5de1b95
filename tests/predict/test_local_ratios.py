"""What load points measured here change about predictions, and the file they are kept in."""

from __future__ import annotations

import math

import pytest

from autotuner.errors import ConfigError
from autotuner.predict import local_ratios
from autotuner.predict.layout import Layout
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.local_ratios import (
    LocalRatios,
    delete_ratios,
    held_out_errors,
    measured_ratio,
    ratios_for,
    ratios_key,
    save_ratios,
)
from autotuner.predict.open_loop import OpenLoopModel
from autotuner.predict.traffic import Software, Traffic

TRAFFIC = Traffic(2000, 200)


def load_curve(tp: int = 1, gpu: str = "h100", bundled_only: bool = False) -> LoadCurve:
    return LoadCurve(Software("vllm").deploy("qwen3-8b", gpu, Layout(tp=tp)), TRAFFIC, bundled_only=bundled_only)


def slower(ttft: float, tpot: float, loads: tuple[int, ...] = (1, 8, 32), launch: str = "run 1") -> LocalRatios:
    """Load points measured at these multiples of the predictions."""
    curve = load_curve(bundled_only=True)
    predictions = [(load, curve.at_concurrency(load)) for load in loads]
    return LocalRatios(
        tuple(
            measured_ratio(launch, curve.deployment, TRAFFIC, load, p, ttft * p.ttft, tpot * p.tpot)
            for load, p in predictions
        )
    )


def save(ratios: LocalRatios) -> None:
    save_ratios({ratios_key(load_curve().deployment): ratios})


def test_ratios_are_kept_for_their_model_engine_and_gpu_alone():
    save(slower(1.5, 1.2))
    assert ratios_for(load_curve().deployment) == slower(1.5, 1.2)
    assert ratios_for(load_curve(tp=2).deployment) is not None
    assert ratios_for(load_curve(gpu="b200").deployment) is None
    assert delete_ratios() is not None
    assert ratios_for(load_curve().deployment) is None
    assert delete_ratios() is None


def test_later_predictions_move_towards_them_and_can_leave_them_out():
    save(slower(1.5, 1.2))
    here, bundled = load_curve().at_concurrency(16), load_curve(bundled_only=True).at_concurrency(16)
    assert 1.1 < here.tpot / bundled.tpot < 1.2
    assert 1.3 < here.ttft / bundled.ttft < 1.5
    assert here.ttft_interval.lower < here.ttft < here.ttft_interval.upper
    assert here.requests * (here.ttft + 199 * here.tpot) == pytest.approx(16)
    assert sum(here.ttft_parts.values()) == pytest.approx(here.ttft)
    assert sum(here.tpot_parts.values()) == pytest.approx(here.tpot)


@pytest.mark.parametrize("tp", [1, 2, 4])
def test_forecasts_of_other_layouts_tighten_too(tp: int):
    def width(curve: LoadCurve) -> float:
        interval = curve.at_concurrency(64).tpot_interval
        return interval.upper / interval.lower

    bundled = width(load_curve(tp=tp, bundled_only=True))
    save(slower(1.0, 1.0))
    assert width(load_curve(tp=tp)) < bundled


def test_one_point_moves_predictions_by_less_than_its_ratio():
    for ratio in (0.5, 1.0, 3.0):
        save(slower(ratio, ratio, loads=(8,)))
        here, bundled = load_curve().at_concurrency(8), load_curve(bundled_only=True).at_concurrency(8)
        moved = math.log(here.ttft / bundled.ttft)
        assert min(0.0, math.log(ratio)) <= moved <= max(0.0, math.log(ratio))


def test_they_lower_the_rate_that_is_sustained():
    bundled = OpenLoopModel(load_curve()).max_rate
    save(slower(1.5, 1.5))
    assert bundled / 1.5 <= OpenLoopModel(load_curve()).max_rate < bundled


def test_errors_are_of_points_held_out():
    before, after = held_out_errors(slower(1.5, 1.2).ratios)
    assert before == pytest.approx((1 / 3, 1 / 6))
    assert before is not None
    assert after is not None
    assert after < before
    assert held_out_errors(slower(1.5, 1.2, loads=(8,)).ratios) == (None, None)


def test_factors_of_earlier_versions_are_left_out():
    local_ratios.data_folder().mkdir(parents=True)
    (local_ratios.data_folder() / local_ratios.RATIOS_FILE).write_text(
        '{"version": 1, "factors": {"vllm h100_sxm": {}}}'
    )
    assert ratios_for(load_curve().deployment) is None


@pytest.mark.parametrize(
    "text", ["not json", '{"ratios": {"vllm h100_sxm": {}}}', "[]", '{"ratios": []}', '{"version": 3, "ratios": {}}']
)
def test_a_file_that_cannot_be_read_says_how_to_start_again(text: str):
    local_ratios.data_folder().mkdir(parents=True)
    (local_ratios.data_folder() / local_ratios.RATIOS_FILE).write_text(text)
    with pytest.raises(ConfigError, match="calibrate --forget"):
        load_curve()
