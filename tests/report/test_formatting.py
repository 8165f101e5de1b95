import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.core import Candidate, Share
from autotuner.report.formatting import candidate_label, format_number, format_setting, format_share, interval_legend


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
        (0.0001, "0.000100"),
        (9.99e-5, "<0.0001"),
        (1e-22, "<0.0001"),
        (-1e-22, ">-0.0001"),
        (4.9e-324, "<0.0001"),
        (1.234e12, "1,230,000,000,000"),
        (-5.25, "-5.25"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_have_three_significant_figures(value, text):
    assert format_number(value) == text


@given(st.floats(1e-4, 1e9))
def test_a_formatted_number_is_within_half_a_percent_of_the_value(value):
    assert float(format_number(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


def test_a_share_shows_its_interval():
    assert format_share(Share(0.9, 0.699, 0.972, 20)) == "90% (70-97)"
    assert format_share(None) == ""


@pytest.mark.parametrize(
    ("cells", "text"),
    [
        ([], ""),
        (["12.5", "", "tp-size=2 (x-)", "D(100,100)"], ""),
        (["12.5 (11.0-13.9)", "98 (95-99)"], "95% confidence intervals in parentheses."),
        (["90% (70-97)"], "95% confidence intervals in parentheses."),
        (
            ["98 (95-99)", "1,209 (1,204-)"],
            "95% confidence intervals in parentheses; an open end, as in 1,209 (1,204-), "
            "means too few requests for a limit.",
        ),
    ],
)
def test_intervals_are_explained_where_there_are_some(cells, text):
    assert interval_legend(cells) == text


def test_settings_are_written_as_in_yaml():
    assert [format_setting(value) for value in (True, False, None, 0.9, "fp8")] == [
        "true",
        "false",
        "null",
        "0.9",
        "fp8",
    ]


def test_a_candidate_without_parameters_is_its_runtime():
    assert candidate_label(Candidate("vllm", {}), []) == "vllm"
    assert candidate_label(Candidate("vllm", {"tp-size": 1}), ["tp-size"], runtime=True) == "vllm tp-size=1"
