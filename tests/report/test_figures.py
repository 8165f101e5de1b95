import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.core import Candidate, Share
from autotuner.report.figures import label, number, setting, share


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0, "0"),
        (0.00123456, "0.00123"),
        (1.0, "1.00"),
        (9.999, "10.0"),
        (12.345, "12.3"),
        (123.4, "123"),
        (12345.6, "12,300"),
        (1e-22, "1.00e-22"),
        (-5.25, "-5.25"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_have_three_significant_figures(value, text):
    assert number(value) == text


@given(st.floats(1e-4, 1e9))
def test_a_number_is_within_half_a_percent_of_what_it_says(value):
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


def test_a_share_shows_its_interval():
    assert share(Share(0.9, 0.699, 0.972, 20)) == "90% (70-97)"
    assert share(None) == ""


def test_settings_are_written_as_in_yaml():
    assert [setting(value) for value in (True, False, None, 0.9, "fp8")] == ["true", "false", "null", "0.9", "fp8"]


def test_a_candidate_without_parameters_is_its_runtime():
    assert label(Candidate("vllm", {}), []) == "vllm"
    assert label(Candidate("vllm", {"tp-size": 1}), ["tp-size"], runtime=True) == "vllm tp-size=1"
