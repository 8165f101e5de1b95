"""Tables and running text at the widths they are read at."""

import io
import re
import sys

import pytest
from rich.console import Console

from autotuner.cli import display, table_layout
from autotuner.report.table import Column, Table

ROWS = [
    {"#": "1", "name": "alpha=1 beta=0.85 enable-gamma=true", "p99": "1,234.5 (1,200-)", "rate": "12,345", "n": "7"},
    {"#": "2", "name": "beta=0.9", "p99": "3.5 (3-4)", "rate": "9", "n": "1,000"},
]
COLUMNS = (
    Column("#", lambda row: row["#"]),
    Column("name", lambda row: row["name"], numeric=False, drop_priority=2, listed_below=True),
    Column("TTFT p99 ms", lambda row: row["p99"], drop_priority=1),
    Column("output tokens/s/GPU", lambda row: row["rate"]),
    Column("n", lambda row: row["n"], drop_priority=3),
)


@pytest.fixture
def at(monkeypatch):
    """Show the table where COLUMNS has a value, None for a pipe without it."""

    def show(width, show=lambda: display.report_table(Table(COLUMNS, tuple(ROWS), ("A note.",)), "title")):
        if width is None:
            monkeypatch.delenv("COLUMNS", raising=False)
        else:
            monkeypatch.setenv("COLUMNS", str(width))
        captured_output = io.StringIO()
        monkeypatch.setattr(sys, "stdout", captured_output)
        show()
        return captured_output.getvalue()

    return show


@pytest.mark.parametrize("width", [100, 80, 60, 45, 40, 20])
def test_no_number_is_broken_or_cut_at_any_width(at, width):
    text = at(width)
    assert "12,345" in text
    if "TTFT" in text.splitlines()[2]:
        assert "1,234.5 (1,200-)" in text


@pytest.mark.parametrize("width", [100, 80, 60, 45, 40])
def test_a_table_and_its_notes_fit_the_width(at, width):
    assert max(map(len, at(width).splitlines())) <= width


def test_columns_are_left_out_in_the_declared_order_and_named(at):
    assert "Left out" not in at(100)
    assert "Left out" not in at(62)
    order = [at(width).split("Left out at ")[-1].split(":")[-1].split(".")[0].split() for width in (34, 30)]
    assert order == [["n"], ["TTFT", "p99", "ms"]]


def test_a_column_of_low_priority_comes_back_where_a_wider_one_made_room(at):
    text = at(44)
    assert "name" not in text.split("#1:")[0]
    assert re.search(r"12,345 +7\n", text)


def test_what_has_no_room_as_a_column_is_listed_below_by_what_its_row_begins_with(at):
    assert "#1: alpha=1 beta=0.85 enable-gamma=true\n#2: beta=0.9\n" in at(44)
    assert "#1:" not in at(100)


def test_a_column_that_may_be_listed_below_is_never_broken_over_lines(at):
    for width in range(40, 101):
        lines = at(width).splitlines()
        assert sum("alpha=1 beta=0.85 enable-gamma=true" in line for line in lines) == 1


def test_a_pipe_has_no_width(at):
    text = at(None)
    assert "alpha=1 beta=0.85 enable-gamma=true" in text
    assert "output tokens/s/GPU" in text
    many = [Column(f"column {place}", lambda row: "1" * 40, drop_priority=place) for place in range(9)]
    wide = at(None, lambda: display.report_table(Table(tuple(many), ({},))))
    assert wide.count("1" * 40) == 9
    assert "Left out" not in wide


def test_titles_wrap_at_words_and_hyphens_but_never_inside_a_unit(at):
    names = ["mem-fraction-static", "output tokens/s/GPU"]
    rows = [dict.fromkeys(names, "1")]
    wide, narrow = (at(width, lambda: display.table(rows, names, numeric=names)) for width in (41, 23))
    assert wide.splitlines()[0] == "mem-fraction-static  output tokens/s/GPU"
    heads = [line.split() for line in narrow.splitlines()[:3]]
    assert heads == [["mem-"], ["fraction-", "output"], ["static", "tokens/s/GPU"]]


def test_text_wraps_at_words(at):
    text = at(40, lambda: display.table([{"why": "one reason that takes more than a line of forty columns"}], ["why"]))
    assert max(map(len, text.splitlines())) <= 40
    assert "columns" in text


def test_words_are_broken_where_nothing_else_makes_a_table_fit(at):
    path = "/a/very/long/path/that/has/no/space/in/it.yaml"
    rows = [{"file": path, "why": "words of a reason " * 3, "n": "123,456,789"}]
    text = at(50, lambda: display.table(rows, ["file", "why", "n"], numeric=["n"]))
    assert max(map(len, text.splitlines())) <= 50
    assert "123,456,789" in text
    unbounded = at(None, lambda: display.table([rows[0] | {"file": path * 5}], ["file", "why", "n"]))
    assert "123,456,789" in unbounded


def test_a_column_without_a_title_or_without_cells_is_drawn(at):
    rows: list[dict[str, str | None]] = [{"a": "1"}, {"a": "2", "": None}]
    assert at(40, lambda: display.table(rows, ["", "a"])).split()[0] == "a"
    assert "2" in at(40, lambda: display.table(rows, ["", "a", "none"], numeric=["a", "none"]))


def test_legends_stand_below_the_columns_they_explain_only(at):
    wide = at(100)
    assert "95% confidence intervals in parentheses; an open end, as in 1,234.5 (1,200-), means" in " ".join(
        wide.split()
    )
    assert "95% confidence" not in at(30)


@pytest.mark.parametrize(
    ("text", "colour"),
    [
        ("feasible", "green"),
        ("feasible (near)", "green"),
        ("undecided", "yellow"),
        ("infeasible", "red"),
        ("saturated", "magenta"),
        ("client-limited", "magenta"),
        ("invalid", "magenta"),
        ("crashed-at-start", "red"),
        ("", ""),
    ],
)
def test_verdicts_are_coloured_in_a_terminal(text, colour):
    assert str(table_layout._styled_cell("verdict", text).style) == colour
    assert str(table_layout._styled_cell("limit", text).style) == ""


def test_a_pipe_has_no_colours(at):
    table = Table((Column("verdict", lambda row: row["verdict"], numeric=False),), ({"verdict": "feasible"},))
    assert "\x1b" not in at(80, lambda: display.report_table(table))


def test_running_text_is_wrapped_at_words_in_a_terminal_and_not_in_a_pipe(at):
    text = "a sentence of words " * 8
    assert max(map(len, at(60, lambda: display.sentence(text)).splitlines())) <= 60
    assert max(map(len, at(150, lambda: display.sentence(text)).splitlines())) <= 100
    assert at(None, lambda: display.sentence(text)).count("\n") == 1


def test_a_view_gets_a_table_of_its_width():
    console = Console(width=60)
    rows = [{"a": "1" * 20, "b": "word " * 20}]
    with console.capture() as captured:
        console.print(
            display.make_table(rows, [table_layout.ColumnSpec("a", True), table_layout.ColumnSpec("b")], width=60)
        )
    assert max(map(len, captured.get().splitlines())) <= 60
    assert "1" * 20 in captured.get()


class PipeWithoutReader(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_pipe_whose_reader_is_gone_is_no_verdict(monkeypatch):
    monkeypatch.setattr(sys, "stdout", PipeWithoutReader())
    with pytest.raises(BrokenPipeError):
        display.stdout_console().print("a result")
