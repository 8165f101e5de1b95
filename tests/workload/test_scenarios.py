from __future__ import annotations

import json
import statistics
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.errors import ConfigError
from autotuner.workload import scenarios


def draws(text: str, number: int = 4000) -> tuple[list[int], list[int]]:
    rng, scenario = Random(1), scenarios.parse(text)
    prompts, outputs = zip(*(scenario.sample_lengths(rng) for _ in range(number)), strict=True)
    return list(prompts), list(outputs)


def test_d_has_exactly_these_lengths():
    assert set(zip(*draws("D(2000,200)", 10), strict=True)) == {(2000, 200)}


def test_p_counts_the_shared_prefix_as_part_of_the_prompt():
    scenario = scenarios.parse("P(1000,100,20)")
    assert scenario.prefix_tokens == 1000
    assert scenario.sample_lengths(Random(0)) == (1100, 20)


def test_only_p_shares_a_prefix():
    for text in ("D(5,5)", "N(5,1)/(5,1)", "U(5,5)"):
        assert scenarios.parse(text).prefix_tokens == 0


def test_n_has_the_means_and_deviations_it_names():
    prompts, outputs = draws("N(480,24)/(300,15)")
    assert abs(statistics.fmean(prompts) - 480) < 2
    assert abs(statistics.stdev(prompts) - 24) < 2
    assert abs(statistics.fmean(outputs) - 300) < 2
    assert abs(statistics.stdev(outputs) - 15) < 1


def test_n_never_asks_for_less_than_one_token_in_and_two_out():
    prompts, outputs = draws("N(2,50)/(2,50)")
    assert min(prompts) == 1
    assert min(outputs) == 2


def test_u_reaches_both_limits_and_nothing_outside():
    prompts, outputs = draws("U(10,14)/(3,5)")
    assert set(prompts) == {10, 11, 12, 13, 14}
    assert set(outputs) == {3, 4, 5}


def test_the_short_u_begins_at_one():
    prompts, outputs = draws("U(4,3)")
    assert set(prompts) == {1, 2, 3, 4}
    assert set(outputs) == {1, 2, 3}


def test_c_grows_by_the_turn_before_and_its_answer():
    scenario = scenarios.parse("C(3,100,20)")
    assert isinstance(scenario, scenarios.Conversation)
    assert [scenario.turn_lengths(number) for number in range(3)] == [(100, 20), (220, 20), (340, 20)]
    assert scenario.mean_lengths == (220, 20)
    assert set(zip(*draws("C(3,100,20)", 100), strict=True)) == {(100, 20), (220, 20), (340, 20)}


def test_equal_seeds_draw_equal_lengths():
    scenario = scenarios.parse("N(480,240)/(300,150)")
    first, second = Random("x"), Random("x")
    assert [scenario.sample_lengths(first) for _ in range(50)] == [scenario.sample_lengths(second) for _ in range(50)]


numbers = st.integers(1, 10**6)


@given(numbers, numbers, numbers, numbers)
def test_a_scenario_is_written_as_it_was_read(a: int, b: int, c: int, d: int):
    low_input, high_input, low_output, high_output = min(a, b), max(a, b), min(c, d), max(c, d)
    for text in (
        f"D({a},{b})",
        f"P({a},{b},{c})",
        f"C({a + 1},{b},{c})",
        f"N({a},{b})/({c},{d})",
        f"U({a},{b})",
        f"U({low_input},{high_input})/({low_output},{high_output})",
    ):
        assert str(scenarios.parse(text)) == text


@given(st.text(max_size=20))
def test_any_other_text_is_a_config_error_or_reads_back(text: str):
    try:
        scenario = scenarios.parse(text)
    except ConfigError:
        return
    assert str(scenario) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("D(100, 100)", "'D(100,100)'? No spaces"),
        ("d(100,100)", "did you mean 'D(100,100)'"),
        ("D(100)", "did you mean 'D(in,out)'"),
        ("N(100,10)", "did you mean 'N(mean_in,sd_in)/(mean_out,sd_out)'"),
        ("C(1,5,5)", "at least 2 turns"),
        ("C(5,5)", "did you mean 'C(turns,in,out)'"),
        ("P(5,5)", "did you mean 'P(prefix,in,out)'"),
        ("fixed", "Unknown scenario 'fixed'"),
        ("", "Unknown scenario ''"),
        ("D(0,5)", "at least 1 prompt token"),
        ("D(5,0)", "at least 1 prompt token"),
        ("D(-5,5)", "did you mean 'D(in,out)'"),
        ("P(0,5,5)", "use 'D(5,5)'"),
        ("U(9,5)/(1,2)", "range 9 to 5"),
        ("U(0,5)", "range 1 to 0"),
        ("N(0,5)/(1,2)", "mean of 0"),
        ("E(512)", "embeddings"),
        ("R(512,20)", "reranking"),
        ("I(512,512)", "images"),
        ("file:/nowhere/trace.jsonl", "cannot be read"),
    ],
)
def test_what_is_not_a_scenario_is_refused_with_a_hint(text: str, message: str):
    with pytest.raises(ConfigError) as caught:
        scenarios.parse(text)
    assert message in str(caught.value)


def test_a_trace_gives_the_lengths_of_its_rows(tmp_path: Path):
    path = tmp_path / "trace.jsonl"
    rows = [{"timestamp": 10 + n, "input_length": 100 + n, "output_length": 10 + n} for n in range(3)]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    scenario = scenarios.parse(f"file:{path}")
    rng = Random(0)
    assert {scenario.sample_lengths(rng) for _ in range(100)} == {(100, 10), (101, 11), (102, 12)}
    assert str(scenario) == f"file:{path}"
    assert isinstance(scenario, scenarios.TraceReplay)
    assert scenario.timestamps == (0, 1, 2)


@pytest.mark.parametrize(
    "text",
    [
        "D(9999999999,5)",
        "D(5,9999999999)",
        f"D({'9' * 5000},5)",
        "P(10000001,1,1)",
        "U(10000001,2)",
        "C(2,10000001,1)",
        "N(99999999,1)/(2,1)",
    ],
)
def test_a_length_that_no_model_has_is_refused_at_once(text):
    with pytest.raises(ConfigError, match="10,000,000 tokens"):
        scenarios.parse(text)
