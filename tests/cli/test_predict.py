"""`autotune predict` as a user types it."""

import csv
import json
import re

import pytest

from autotuner.predict.shape import catalogue

QUESTION = ("--model", "llama-3.1-70b", "--gpu", "H100", "--isl", "4000", "--osl", "500")
POINT = ("predict", "point", *QUESTION, "--tp", "4")
RANK = ("predict", "rank", *QUESTION)
SIZE = ("predict", "size", *QUESTION)


def test_a_point_shows_where_the_time_and_the_memory_go(autotune):
    ended = autotune(*POINT, "--concurrency", "32")
    assert ended.code == 0
    assert "predicted" in ended.out
    for word in ("TTFT", "TPOT", "80% interval", "collectives", "KV cache"):
        assert word in ended.out


def test_a_point_as_json_has_intervals_around_it_and_the_parts_it_adds_up_from(autotune):
    data = autotune(*POINT, "--json").data
    assert sum(data["ttft_parts"].values()) == pytest.approx(data["ttft"])
    assert sum(data["tpot_parts"].values()) == pytest.approx(data["tpot"])
    assert data["source"] == "predicted"
    assert data["ttft_interval"][0] < data["ttft"] < data["ttft_interval"][1]


def test_an_open_loop_says_how_much_it_sustains(autotune):
    data = autotune(*POINT, "--rate", "0.5", "--json").data
    assert data["request_throughput"] == 0.5 < data["sustainable_rate"]
    ended = autotune(*POINT, "--rate", "500")
    assert ended.code == 1
    assert "saturates" in ended.err


def test_layouts_on_a_number_of_gpus_are_ranked_with_cost_table_and_plot(autotune, tmp_path):
    arguments = ("--total-gpus", "16", "--slo", "ttft=1,tpot=0.03", "--price", "H100=2.5", "--output", "answer")
    ended = autotune(*RANK, *arguments)
    assert ended.code == 0
    words = " ".join(ended.out.split())
    for word in ("best, ", "aggregated", "prefill", "output tokens/s per GPU", "predicted"):
        assert word in words
    assert re.search(r"\b\d\.\d\d per million output tokens", words)
    lines = ended.out.splitlines()
    (heads,) = (lines[at - 5 : at] for at, line in enumerate(lines) if line.startswith("──"))
    assert "tokens/s/GPU" in heads[-1]
    assert [head.split()[-1] for head in heads[:3]] == ["first", "currency", "1M"]
    with (tmp_path / "answer" / "options.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["mode"] for row in rows} == {"aggregated", "disaggregated"}
    assert (tmp_path / "answer" / "pareto.png").read_bytes().startswith(b"\x89PNG")


def test_gpu_types_are_compared_for_a_rate(autotune):
    prices = ("--price", "H100=2.5,H200=3.2")
    ended = autotune(*SIZE, "--gpu", "H100,H200", "--rate", "20", "--slo", "ttft=1,tpot=0.03", *prices)
    assert ended.code == 0
    assert "cheapest first" in ended.out
    assert "h100_sxm" in ended.out
    assert "h200_sxm" in ended.out


def test_too_few_gpus_for_a_rate_exit_1_with_the_number_needed(autotune):
    ended = autotune(*SIZE, "--rate", "50", "--total-gpus", "8")
    assert ended.code == 1
    assert "--total-gpus" in ended.err


@pytest.mark.parametrize(
    ("question", "remedy"),
    [(POINT, "`autotune predict rank`"), (RANK, "--slo tpot="), ((*SIZE, "--rate", "5"), "--slo tpot=")],
)
def test_a_target_nobody_can_meet_exits_1_with_the_term_that_binds(autotune, question, remedy):
    ended = autotune(*question, "--slo", "tpot=0.00001")
    assert ended.code == 1
    assert "tpot" in ended.err
    assert remedy in " ".join(ended.err.split())


def test_without_a_command_the_layouts_on_eight_gpus_are_ranked(autotune):
    assert autotune("predict", *QUESTION).out == autotune(*RANK, "--total-gpus", "8").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*POINT, "--slo", "latency=1"), "the means of TTFT and TPOT"),
        ((*POINT, "--slo", "balanced"), "the means of TTFT and TPOT"),
        (("predict", "--gpu", "H100"), "Missing option '--model'"),
        (("predict", "size", "--model", "qwen3-32b", "--gpu", "any"), "Missing option '--rate'"),
        ((*POINT, "--runtime", "vlm"), "did you mean 'vllm'"),
        ((*POINT, "--dtype", "fp8", "--gpu", "A100"), "does not compute in fp8"),
        ((*POINT, "--dtype", "fp7"), "Unknown dtype 'fp7'"),
        ((*POINT, "--kv-dtype", "int4"), "KV cache"),
        ((*POINT, "--isl", "200000"), "more than the 131072 positions"),
        ((*POINT, "--rate", "0"), "--rate must be above 0"),
        ((*SIZE, "--rate", "-1"), "rate must be above 0"),
        ((*RANK, "--tp", "4"), "`autotune predict point` predicts one deployment"),
        ((*RANK, "--rate=3"), "`autotune predict size` finds the fewest GPUs"),
        ((*RANK, "--sweep"), "`autotune predict rank` has no --sweep"),
        (("predict", *QUESTION, "--target-rate", "3"), "`autotune predict size --rate R`"),
        (("predict", "--table", "rows.csv"), "`autotune predict table FILE`"),
        ((*SIZE, "--rate", "3", "--concurrency", "3"), "`autotune predict point`"),
        ((*POINT, "--rate", "3", "--concurrency", "3"), "cannot be combined"),
        ((*POINT, "--runtime", "sim"), "Unknown engine"),
        ((*POINT, "--prefix-hit", "1.5"), "prefix hit rate"),
        ((*POINT, "--draft-tokens", "2", "--acceptance", "7"), "acceptance"),
        ((*POINT, "--slo", "ttft=-1"), "above 0"),
        ((*POINT, "--price", "H100=free"), "--price H100=2.5"),
        ((*POINT, "--price", "H1000=1"), "did you mean"),
        ((*POINT, "--gpu", "H100,H200"), "`autotune predict size`"),
        ((*POINT, "--plot", "x.png"), "`autotune predict rank` and `autotune predict size` compare"),
        ((*POINT, "--isl", "0"), "--isl"),
        ((*POINT, "--tp", "3"), "not divisible by tp 3"),
        ((*POINT, "--gpu", "H1000"), "did you mean"),
        ((*POINT, "--tp", "1"), "does not fit"),
        (("predict", "table", "rows.csv"), "--output"),
        (
            ("predict", "table", "rows.csv", "--output", "out.csv"),
            "Cannot read rows.csv. No such file",
        ),
    ],
)
def test_what_cannot_be_predicted_exits_2_and_says_why(autotune, arguments, message):
    ended = autotune(*arguments)
    assert ended.code == 2
    assert message in " ".join(ended.err.split())
    assert "Traceback" not in ended.err


def test_a_csv_is_predicted_row_by_row(autotune, tmp_path):
    columns = "engine,engine_version,model,gpu,isl,osl,gemm_dtype,moe_dtype,concurrency,gpus,tp_size,pp_size,dp_size"
    good = "vllm,,meta-llama/Llama-3.1-70B,h200_sxm,1024,1024,fp8,fp8,16,4,4,1,1"
    short = "vllm,,llama-3.1-70b,h200_sxm,1024,1024"
    (tmp_path / "rows.csv").write_text(f"{columns}\n{good}\n{good.replace('h200_sxm', 'abacus')}\n{short}\n")
    ended = autotune("predict", "table", "rows.csv", "--output", "folder/out.csv")
    assert ended.code == 0
    assert "1 rows predicted, 2 not" in ended.err
    with (tmp_path / "folder" / "out.csv").open(newline="") as file:
        first, second, third = csv.DictReader(file)
    assert 5 < float(first["pred_tpot_ms"]) < 20
    assert first["pred_error"] == ""
    assert ",".join(list(first.values())[:13]) == good
    assert "abacus" in second["pred_error"]
    assert "lacks concurrency" in third["pred_error"]


@pytest.mark.parametrize(
    ("column", "meant"), [("tp", "tp_size"), ("TP-Size", "tp_size"), ("tp_sise", "tp_size"), ("ep", "moe_ep_size")]
)
def test_a_column_that_is_not_read_for_its_name_is_a_warning(autotune, tmp_path, column, meant):
    (tmp_path / "rows.csv").write_text(
        f"engine,model,gpu,isl,osl,concurrency,{column},ttft_ms,gpus\nvllm,llama-3.1-70b,h200_sxm,1024,1024,16,4,9,4\n"
    )
    ended = autotune("predict", "table", "rows.csv", "--output", "out.csv")
    assert ended.err.count("Warning") == 1
    assert f"Column '{column}' is not read; if it is the {meant}, name it so" in " ".join(ended.err.split())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "It is empty."),
        (b"model\n\xff\n", "It is not text in UTF-8."),
        (b"model,gpu\na,b\na,b,c\n", "Line 3 has 3 cells, and there are 2 columns."),
        (b"model,gpu\na,b,c\n", "Line 2 has 3 cells, and there are 2 columns."),
        (b'model,gpu\na,"b\n', "Line 2 is not CSV: check its quotation marks."),
    ],
)
def test_a_file_that_is_no_table_is_refused(autotune, tmp_path, content, reason):
    (tmp_path / "rows.csv").write_bytes(content)
    ended = autotune("predict", "table", "rows.csv", "--output", "out.csv")
    assert ended.code == 2
    assert f"Cannot read rows.csv. {reason}" in " ".join(ended.err.split())


@pytest.fixture
def four_bit(tmp_path):
    """A folder with a 70B model in 4 bit, and one of an architecture and a quantisation that nobody knows."""
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 128}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    known = {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ["lm_head"]}
    sizes = catalogue()["llama-3.1-70b"]
    for name, changes in (
        ("known", {"quantization_config": known}),
        ("unknown", {"architectures": ["NobodyForCausalLM"], "quantization_config": {"quant_method": "novel"}}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({**sizes, **changes}))


def test_predictions_and_plans_say_where_the_weights_were_read(autotune, four_bit):
    read = "4 bit (config_groups), 36.8 GiB"
    for arguments in (("point",), ("rank", "--total-gpus", "1")):
        ended = autotune("predict", *arguments, "--model", "./known", "--gpu", "H100")
        assert f"weights: {read}" in ended.out
        assert "rough" not in ended.err
    assert autotune("predict", "point", "--model", "./known", "--gpu", "H100", "--json").data["weights"] == read
    plan = ("run", "--profile", "quick-test", "--runtime", "vllm", "--model", "./known", "--gpu", "H100", "--dry-run")
    assert read in autotune(*plan, "--total-gpus", "1").out
    assert autotune(*plan, "--total-gpus", "1", "--json").data["weights"] == [read]


def test_what_was_guessed_of_a_model_is_a_warning_and_a_dtype_is_a_way_out(autotune, four_bit):
    question = ("predict", "point", "--model", "./unknown", "--gpu", "H100", "--tp", "4")
    ended = autotune(*question)
    assert "rough: unknown architecture NobodyForCausalLM read as dense" in ended.err
    assert "rough: unknown quantisation novel read as 16 bit" in ended.err
    given = autotune(*question, "--dtype", "int4")
    assert "weights: 4 bit (--dtype int4), 36.8 GiB" in given.out
    assert "quantisation" not in given.err


@pytest.mark.parametrize(
    ("options", "command"),
    [((), RANK), (("--total-gpus", "4"), RANK), (("--tp", "4"), POINT), (("--tp=4", "--rate", "1"), POINT)],
)
def test_without_a_command_the_options_say_which_one_is_meant(autotune, options, command):
    spelled_out = autotune(*command[:2], *QUESTION, *options, "--json")
    assert autotune("predict", *QUESTION, *options, "--json") == spelled_out
