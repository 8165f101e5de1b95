from __future__ import annotations

import pytest

from autotuner.errors import ConfigError
from autotuner.predict.hardware import find_gpu
from autotuner.predict.serving_option import best_per_layout, pareto_frontier
from autotuner.predict.shape import model_shape
from autotuner.predict.sweep import layouts, rank_options
from autotuner.predict.traffic import LatencyTarget, Traffic

TRAFFIC = Traffic(1024, 256)


def test_what_meets_the_target_comes_first_by_throughput_per_gpu():
    ranked = rank_options("qwen3-8b", "h100", target=LatencyTarget(tpot=0.012), traffic=TRAFFIC)
    feasible = [option for option in ranked if option.meets_target]
    assert ranked[: len(feasible)] == feasible
    assert [option.throughput_per_gpu for option in feasible] == sorted(
        (option.throughput_per_gpu for option in feasible), reverse=True
    )


def test_where_nothing_meets_the_target_the_nearest_comes_first():
    ranked = rank_options("qwen3-8b", "h100", target=LatencyTarget(tpot=1e-5), traffic=TRAFFIC)
    assert ranked[0].target_ratio == min(option.target_ratio for option in ranked) > 1
    assert ranked[0].binding == "tpot"


def test_no_option_of_the_frontier_beats_another_in_both():
    kept = pareto_frontier(rank_options("qwen3-30b-a3b", "h100", traffic=TRAFFIC))
    assert [option.throughput_per_gpu for option in kept] == sorted(option.throughput_per_gpu for option in kept)
    assert len(kept) > 2


def test_no_option_takes_more_gpus_than_there_are():
    ranked = rank_options("qwen3-8b", "h100", total_gpus=6, traffic=TRAFFIC)
    assert {option.mode for option in ranked} == {"aggregated", "disaggregated"}
    assert max(option.gpus for option in ranked) == 6


def test_gpus_that_stand_idle_count_against_an_option():
    ranked = rank_options("qwen3-8b", "h100", total_gpus=6, traffic=TRAFFIC)
    four = next(option for option in ranked if option.gpus == 4 and option.mode == "aggregated")
    assert four.throughput_per_gpu == pytest.approx(four.throughput / 6)


def test_each_layout_is_shown_once_at_the_load_that_ranks_first():
    ranked = rank_options("qwen3-8b", "h100", target=LatencyTarget(tpot=0.012), traffic=TRAFFIC)
    best = best_per_layout(ranked)
    assert best[0] is ranked[0]
    assert len({(option.mode, option.serving.layout) for option in best}) == len(best)


def test_cost_is_the_price_of_all_gpus_for_the_tokens_of_an_hour():
    ranked = rank_options("qwen3-8b", "h100", total_gpus=4, prices={"h100_sxm": 2.0}, traffic=TRAFFIC)
    option = ranked[0]
    assert option.cost == pytest.approx(option.gpus * 2.0 / (3600 * option.throughput) * 1e6)
    assert rank_options("qwen3-8b", "h100", total_gpus=1, traffic=TRAFFIC)[0].cost is None


def test_decode_workers_can_stand_on_another_gpu_type():
    ranked = rank_options("qwen3-8b", "h100", total_gpus=8, decode_gpu="b200", traffic=TRAFFIC)
    assert {tuple(pool.gpu.name for pool in option.pools) for option in ranked} == {("h100_sxm", "b200_sxm")}


def test_experts_are_spread_only_where_there_are_some():
    assert all(layout.ep == 0 for layout in layouts(model_shape("qwen3-8b"), 8))
    assert any(layout.ep == 8 for layout in layouts(model_shape("qwen3-30b-a3b"), 8))


def test_tensor_parallelism_stays_inside_a_node_where_the_network_is_slower():
    shape = model_shape("llama-3.1-70b")
    assert max(layout.tp for layout in layouts(shape, 32, find_gpu("h100"))) == 8
    assert max(layout.tp for layout in layouts(shape, 32, find_gpu("gb200"))) == 32


def test_a_model_too_large_for_all_of_them_is_refused_with_how_many_it_takes():
    with pytest.raises(ConfigError, match=r"does not fit on 2 h100_sxm GPUs.*takes 16.*--total-gpus 16"):
        rank_options("deepseek-r1", "h100", total_gpus=2, traffic=TRAFFIC)
