from __future__ import annotations

import pandas as pd
import pytest

from autotuner.errors import ConfigError
from autotuner.planning.table import (
    PREDICTION_COLUMNS,
    TIME_COLUMNS,
    model_from_row,
    predict_row,
    predicted_columns,
    with_predictions,
)
from autotuner.predict.layout import Layout

ROW = {
    "engine": "vllm",
    "engine_version": "0.15.1",
    "model": "meta-llama/Llama-3.1-70B",
    "gpu": "b200_sxm",
    "precision": "fp8",
    "isl": "1024",
    "osl": "1024",
    "gemm_dtype": "fp8",
    "moe_dtype": "fp8",
    "concurrency": "16",
    "gpus": "4",
    "tp_size": "4",
    "pp_size": "1",
    "dp_size": "1",
    "moe_tp_size": "4",
    "moe_ep_size": "1",
}


def test_a_row_gets_its_times_in_milliseconds_and_keeps_its_columns():
    (answered,) = with_predictions(pd.DataFrame([ROW])).to_dict("records")
    assert list(answered) == [*ROW, *PREDICTION_COLUMNS]
    assert answered["pred_error"] == ""
    assert {name: answered[name] for name in ROW} == ROW
    assert 2 < float(answered["pred_tpot_lo"]) < float(answered["pred_tpot_ms"]) < float(answered["pred_tpot_hi"]) < 40
    assert float(answered["pred_ttft_lo"]) < float(answered["pred_ttft_ms"]) < float(answered["pred_ttft_hi"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": ""}, "lacks model"),
        ({"model": "nobody/nothing"}, "Unknown model"),
        ({"isl": "many"}, "isl is 'many', not a number"),
        ({"concurrency": "0"}, "concurrency must be a whole number of at least 1"),
        ({"tp_size": "3"}, "not divisible by tp 3"),
        ({"gpu": "l4", "tp_size": "1", "moe_tp_size": "1", "gpus": "1"}, "does not fit"),
    ],
)
def test_a_row_that_cannot_be_answered_says_why_in_its_own_column(change, message):
    answered = predicted_columns({**ROW, **change})
    assert message in answered["pred_error"]
    assert not any(answered[name] for name in TIME_COLUMNS)


def test_an_empty_type_is_bf16():
    assert model_from_row({**ROW, "gemm_dtype": "", "moe_dtype": ""})[0].dtypes.mlp == "bf16"


def test_only_the_experts_of_gpt_oss_are_in_four_bits():
    types = model_from_row({**ROW, "model": "openai/gpt-oss-120b", "gemm_dtype": "nvfp4", "moe_dtype": "nvfp4"})[
        0
    ].dtypes
    assert (types.mlp, types.attention_proj, types.expert) == ("bf16", "bf16", "fp4")


@pytest.mark.parametrize(
    ("sizes", "layout"),
    [
        ((64, 1, 8, 8), Layout(tp=8, ep=8)),
        ((1, 64, 8, 8), Layout(dp=8, ep=8)),
        ((4, 4, 1, 16), Layout(tp=4, ep=4)),
        ((8, 1, 8, 1), Layout(tp=8, moe_tp=8, ep=1)),
        ((8, 1, 1, 8), Layout(tp=8, moe_tp=1, ep=8)),
    ],
)
def test_expert_groups_multiplied_into_the_count_are_read_as_the_gpus_there_were(sizes, layout):
    fields = dict(zip(("tp_size", "dp_size", "moe_tp_size", "moe_ep_size"), map(str, sizes), strict=True))
    row = {**ROW, "model": "deepseek-ai/DeepSeek-R1", "gemm_dtype": "nvfp4", "moe_dtype": "nvfp4", **fields}
    assert model_from_row(row)[0].layout == layout


def test_a_pool_of_workers_shares_its_load():
    row = {**ROW, "model": "deepseek-ai/DeepSeek-R1", "gpu": "gb200", "gemm_dtype": "nvfp4", "moe_dtype": "nvfp4"}
    row |= {"tp_size": "36", "moe_tp_size": "36", "gpus": "36", "concurrency": "512"}
    assert predict_row(row).tpot < predict_row({**row, "tp_size": "4", "moe_tp_size": "4"}).tpot


def test_a_row_without_a_load_is_refused():
    with pytest.raises(ConfigError, match="lacks isl"):
        predict_row({key: value for key, value in ROW.items() if key != "isl"})


@pytest.mark.parametrize(
    ("change", "kv"),
    [
        ({"engine": "sglang", "gpu": "b200_sxm"}, "fp8"),
        ({"engine": "sglang", "gpu": "h200_sxm"}, "bf16"),
        ({"engine": "vllm", "gpu": "b200_sxm"}, "fp8"),
        ({"engine": "sglang", "gpu": "b200_sxm", "model": "meta-llama/Llama-3.1-70B"}, "bf16"),
    ],
)
def test_the_cache_is_in_eight_bits_where_engines_keep_it_so(change, kv):
    row = {**ROW, "model": "deepseek-ai/DeepSeek-V3", "tp_size": "8", "moe_tp_size": "8", **change}
    assert model_from_row(row)[0].dtypes.kv == kv
