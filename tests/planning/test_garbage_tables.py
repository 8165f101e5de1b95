"""Whatever stands in a table, the answer is a prediction or a sentence that says what is wrong."""

from __future__ import annotations

import math

from hypothesis import example, given, settings
from hypothesis import strategies as st

from autotuner.planning.table import TIME_COLUMNS, predicted_columns

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
def test_any_row_gets_times_or_an_error(change):
    answered = predicted_columns({**ROW, **change})
    if answered["pred_error"]:
        assert not any(answered[name] for name in TIME_COLUMNS)
    else:
        assert all(math.isfinite(float(answered[name])) and float(answered[name]) > 0 for name in TIME_COLUMNS)


@given(
    st.dictionaries(st.one_of(st.none(), st.text(max_size=8)), st.one_of(st.none(), st.text(max_size=8)), max_size=5)
)
def test_a_row_of_other_columns_says_what_it_lacks(row):
    assert "lacks" in predicted_columns(row)["pred_error"]
