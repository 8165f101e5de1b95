"""Harnesses from rows of a table."""

from __future__ import annotations

import pytest

from autotuner.errors import ConfigError
from autotuner.predict.harness import FIXED, INFERENCEX, Harness, harness_from_row, inferencex_flags


@pytest.mark.parametrize(
    ("row", "harness"),
    [
        ({}, INFERENCEX),
        ({"harness": "nvidia_fixed", "length_ratio": "nan", "prompts_per_level": "not known"}, FIXED),
        ({"harness": "mine", "length_ratio": "0.5", "prompts_per_level": "320"}, Harness("mine", 0.5, 5.0, 0)),
        ({"prompts_per_level": "3 x concurrency, 1 x warm-up"}, Harness("inferencex", 0.8, 3.0, 0)),
    ],
)
def test_a_row_says_how_it_was_driven(row, harness):
    assert harness_from_row(row, concurrency=64) == harness


@pytest.mark.parametrize("ratio", ["0", "1.5", "-1", "short"])
def test_an_impossible_length_ratio_is_refused(ratio):
    with pytest.raises(ConfigError, match="length_ratio"):
        harness_from_row({"length_ratio": ratio}, concurrency=8)


def test_sglang_on_blackwell_polls_rarely_under_load():
    def interval(engine, model, in_flight, *, blackwell=True):
        return inferencex_flags(engine, model, is_blackwell=blackwell, in_flight=in_flight, isl=1024).recv_interval

    assert [interval("sglang", "deepseek-r1", n) for n in (8, 16)] == [10, 30]
    assert interval("sglang", "glm-5", 64) == interval("vllm", "deepseek-r1", 64) == 1
    assert interval("sglang", "deepseek-r1", 64, blackwell=False) == 1
