from __future__ import annotations

import pytest

from autotuner.errors import ConfigError
from autotuner.predict.shape import model_shape
from autotuner.predict.sweep import Target, frontier, layouts, options

LOAD = {"isl": 1024, "osl": 256}


def test_what_meets_the_target_comes_first_by_throughput_per_gpu():
    found = options("qwen3-8b", "h100", target=Target(tpot=0.012), **LOAD)
    good = [option for option in found if option.excess <= 1]
    assert found[: len(good)] == good
    assert [option.per_gpu for option in good] == sorted((option.per_gpu for option in good), reverse=True)


def test_where_nothing_meets_the_target_the_nearest_comes_first():
    found = options("qwen3-8b", "h100", target=Target(tpot=1e-5), **LOAD)
    assert found[0].excess == min(option.excess for option in found) > 1
    assert found[0].binding == "tpot"


def test_no_option_of_the_frontier_beats_another_in_both():
    kept = frontier(options("qwen3-30b-a3b", "h100", **LOAD))
    assert [option.per_gpu for option in kept] == sorted(option.per_gpu for option in kept)
    assert len(kept) > 2


def test_experts_are_spread_only_where_there_are_some():
    assert all(layout.ep == 0 for layout in layouts(model_shape("qwen3-8b"), 8))
    assert any(layout.ep == 8 for layout in layouts(model_shape("qwen3-30b-a3b"), 8))


def test_a_model_too_large_for_all_of_them_is_refused():
    with pytest.raises(ConfigError, match="does not fit"):
        options("deepseek-r1", "h100", total_gpus=2, **LOAD)
