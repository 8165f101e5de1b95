from __future__ import annotations

import pytest

from autotuner.errors import ConfigError
from autotuner.predict import local_factors
from autotuner.predict.layout import Layout
from autotuner.predict.load_curve import Served
from autotuner.predict.local_factors import Factors, factors_for, forget, keep
from autotuner.predict.open_loop import OpenService
from autotuner.predict.traffic import Software, Traffic

SLOWER = Factors(1.5, 1.2, 1.0, 6, 2, (0.3, 0.2), (0.05, 0.03), "measured", "2026-11-21", ("runs/a",))


def served(**more) -> Served:
    return Served(Software("vllm").on("qwen3-8b", "h100", Layout()), Traffic(2000, 200), **more)


def test_factors_are_kept_for_their_engine_and_gpu_alone():
    keep({"vllm h100_sxm": SLOWER})
    assert factors_for("vllm", "h100_sxm") == SLOWER
    assert factors_for("vllm", "b200_sxm") is None
    assert forget() is not None
    assert factors_for("vllm", "h100_sxm") is None
    assert forget() is None


def test_later_predictions_take_them_and_can_leave_them_out():
    keep({"vllm h100_sxm": SLOWER})
    here, bundled = served().closed(16), served(bundled_only=True).closed(16)
    assert 1.2 < here.tpot / bundled.tpot < 1.5
    assert here.ttft > bundled.ttft
    assert here.ttft_interval.low < here.ttft < here.ttft_interval.high
    assert here.requests * (here.ttft + 199 * here.tpot) == pytest.approx(16)


def test_they_lower_the_rate_that_is_sustained():
    bundled = OpenService(served()).highest
    keep({"vllm h100_sxm": SLOWER})
    assert bundled / 1.5 <= OpenService(served()).highest < bundled


def test_parts_add_up_to_the_prediction():
    found = served()
    overhead, prefill, decode, stalls = local_factors.parts(found.closed(32), found.alone)
    assert overhead + prefill == pytest.approx(found.closed(32).ttft)
    assert decode + stalls == pytest.approx(found.closed(32).tpot)
    assert min(overhead, prefill, decode, stalls) >= 0


@pytest.mark.parametrize("text", ["not json", '{"factors": {"vllm h100_sxm": {}}}', "[]", '{"factors": []}'])
def test_a_file_that_cannot_be_read_says_how_to_start_again(text):
    local_factors.data_folder().mkdir(parents=True)
    (local_factors.data_folder() / local_factors.FILE).write_text(text)
    with pytest.raises(ConfigError, match="calibrate --forget"):
        factors_for("vllm", "h100_sxm")
