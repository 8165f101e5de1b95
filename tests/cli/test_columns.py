import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.cli.columns import columns, fold


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("short", 9, ["short"]),
        ("one two three", 9, ["one two", "three"]),
        ("nvcr.io/nvidia/release:1.2.0", 20, ["nvcr.io/nvidia/", "release:1.2.0"]),
        ("Llama-3.1-8B-Instruct", 12, ["Llama-3.1-", "8B-Instruct"]),
        ("unbreakable", 4, ["unbr", "eaka", "ble"]),
    ],
)
def test_a_long_text_is_broken_where_a_reader_would_break_it(text, width, lines):
    assert list(fold(text, width)) == lines


@given(st.text(alphabet="ab /,:-_.", max_size=60), st.integers(1, 20))
def test_no_line_is_too_long_and_nothing_but_spaces_is_lost(text, width):
    lines = list(fold(text, width))
    assert all(len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


ROWS = [("value", "is", "from"), ("optimization.max_iterations", "[1, 2, 3, 4, 5, 6, 7, 8]", "profile quick-test")]


def test_a_table_with_room_has_one_line_for_each_row():
    assert list(columns(ROWS, 100, ((1, 4),))) == [
        " value                        is                        from",
        " " + "─" * 73,
        " optimization.max_iterations  [1, 2, 3, 4, 5, 6, 7, 8]  profile quick-test",
    ]


@pytest.mark.parametrize("width", [40, 60, 70])
def test_columns_give_way_in_their_order_and_the_table_fits(width):
    lines = list(columns(ROWS, width, ((1, 8), (2, 7), (0, 12))))
    assert max(map(len, lines)) <= width
    assert len(lines) > 3
