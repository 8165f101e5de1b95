"""`autotune predict` as a user runs it."""

import csv

import pytest

POINT = ("predict", "--model", "llama-3.1-70b", "--gpu", "H100", "--tp", "4", "--isl", "4000", "--osl", "500")


def test_a_point_shows_where_the_time_and_the_memory_go(autotune):
    said = autotune(*POINT, "--concurrency", "32")
    assert said.code == 0
    assert "predicted" in said.out
    for word in ("TTFT", "TPOT", "80% interval", "collectives", "KV cache"):
        assert word in said.out


def test_a_point_as_json_has_intervals_around_it(autotune):
    data = autotune(*POINT, "--json").data
    assert data["source"] == "predicted"
    assert data["ttft_interval"][0] < data["ttft"] < data["ttft_interval"][1]


@pytest.mark.parametrize("change", [(), ("--sweep",)])
def test_a_target_nobody_can_meet_exits_1_with_the_term_that_binds(autotune, change):
    said = autotune(*POINT, *change, "--slo", "tpot=0.00001")
    assert said.code == 1
    assert "tpot" in said.err


@pytest.mark.parametrize(
    ("arguments", "said_so"),
    [
        ((*POINT, "--slo", "latency=1"), "Means of TTFT and TPOT"),
        ((*POINT, "--slo", "balanced"), "Means of TTFT and TPOT"),
        (("predict",), "needs --model and --gpu"),
        ((*POINT, "--tp", "3"), "not divisible by tp 3"),
        ((*POINT, "--gpu", "H1000"), "did you mean"),
        ((*POINT, "--tp", "1"), "does not fit"),
        (("predict", "--table", "rows.csv"), "--output"),
        (("predict", "--table", "rows.csv", "--output", "out.csv"), "Cannot read rows.csv"),
    ],
)
def test_what_cannot_be_predicted_exits_2_and_says_why(autotune, arguments, said_so):
    said = autotune(*arguments)
    assert said.code == 2
    assert said_so in said.err


def test_a_table_is_answered_row_by_row(autotune, tmp_path):
    columns = "engine,engine_version,model,gpu,isl,osl,gemm_dtype,moe_dtype,concurrency,gpus,tp_size,pp_size,dp_size"
    good = "vllm,,meta-llama/Llama-3.1-70B,h200_sxm,1024,1024,fp8,fp8,16,4,4,1,1"
    (tmp_path / "rows.csv").write_text(f"{columns}\n{good}\n{good.replace('h200_sxm', 'abacus')}\n")
    assert autotune("predict", "--table", "rows.csv", "--output", "out.csv").code == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert 5 < float(first["pred_tpot_ms"]) < 20
    assert first["pred_error"] == ""
    assert "abacus" in second["pred_error"]
