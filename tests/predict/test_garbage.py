"""Whatever stands in a table or a config.json, the answer is a prediction or a sentence that says what is wrong."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autotuner.errors import ConfigError
from autotuner.predict.predict_csv import PREDICTION_COLUMNS, TIME_COLUMNS, with_predictions
from autotuner.predict.shape import catalogue, shape_from_config

ROW = {
    "engine": "vllm",
    "model": "llama-3.1-8b",
    "gpu": "h100_sxm",
    "isl": "1000",
    "osl": "100",
    "gemm_dtype": "",
    "moe_dtype": "",
    "concurrency": "4",
    "gpus": "1",
    "tp_size": "1",
    "pp_size": "1",
    "dp_size": "1",
    "moe_tp_size": "1",
    "moe_ep_size": "1",
}
NASTY = [
    "",
    "nan",
    "inf",
    "-1",
    "0",
    "1.5",
    "1e400",
    "1e30",
    "x" * 5000,
    "\uff5e",
    "\0",
    "~nobody/x",
    "/",
    "../..",
    "\uff11\uff12",
]
cells = st.one_of(st.sampled_from(NASTY), st.text(max_size=20), st.integers().map(str), st.floats().map(str))


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(ROW)), cells, max_size=4))
@example({"isl": "nan"})
@example({"concurrency": "inf"})
@example({"model": "x" * 5000})
def test_any_row_gets_times_or_an_error_and_keeps_its_cells(change):
    answered = with_predictions({**ROW, **change})
    assert {**answered, **ROW, **change} == answered
    if answered["pred_error"]:
        assert not any(answered[name] for name in TIME_COLUMNS)
    else:
        assert all(math.isfinite(float(answered[name])) and float(answered[name]) > 0 for name in TIME_COLUMNS)


@given(
    st.dictionaries(st.one_of(st.none(), st.text(max_size=8)), st.one_of(st.none(), st.text(max_size=8)), max_size=5)
)
def test_a_row_of_other_columns_says_what_it_lacks(row):
    assert "lacks" in with_predictions(row)["pred_error"]


def test_a_row_longer_than_the_header_is_answered():
    assert set(PREDICTION_COLUMNS) <= with_predictions({**ROW, None: ["more", "cells"]}).keys()  # type: ignore[dict-item]


HOLES: list[object] = ["gone", None, "x", -1, 0, [], {}, 1.5, True, [None], ["x"]]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_config_with_a_hole_is_read_or_refused_by_name(data):
    name = data.draw(st.sampled_from(sorted(catalogue())))
    config = dict(catalogue()[name])
    field = data.draw(st.sampled_from(sorted(config)))
    value = data.draw(st.sampled_from(HOLES))
    if value == "gone":
        del config[field]
    else:
        config[field] = value
    try:
        shape_from_config(config, name)
    except ConfigError as error:
        assert name in str(error)  # noqa: PT017  either outcome is right


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_size", "wide", "hidden_size"),
        ("num_hidden_layers", -3, "num_hidden_layers"),
        ("head_dim", "x", 'head_dim is "x"'),
        ("num_key_value_heads", ["x"], 'num_key_value_heads is ["x"]'),
        ("architectures", ["NobodyForCausalLM"], "NobodyForCausalLM"),
        ("quantization_config", "fp8", 'quantization_config is "fp8"'),
    ],
)
def test_the_field_that_is_wrong_is_named(field, value, message):
    with pytest.raises(ConfigError) as refused:
        shape_from_config({**catalogue()["llama-3.1-8b"], field: value}, "mine")
    assert message in str(refused.value)


def test_the_field_that_is_missing_is_named():
    config = {key: value for key, value in catalogue()["llama-3.1-8b"].items() if key != "vocab_size"}
    with pytest.raises(ConfigError, match="vocab_size"):
        shape_from_config(config, "mine")
