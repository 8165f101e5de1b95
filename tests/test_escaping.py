"""Text of any origin stays text in every kind of output."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import subprocess
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner import escaping

PARTS = (
    *("[/x]", "[bold red]", "\x1b]0;PWN\x07", "\x1b[31m", "\u202e", "<script>", "|", "`", "```", "=cmd|'/c calc'!A1"),
    *("\r", "\n", "\t", "\x9b31m", "# ", "- ", "1. ", "&lt;", "**", "\\", "'", '"', "$(x)", "%s", "\ud800", "a", " "),
)
NASTY = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PARTS), max_size=8).map("".join))
WORDS = NASTY.map(lambda text: text.replace("\0", "").encode("utf-8", "ignore").decode())


def controls(text: str) -> list[str]:
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n"] + re.findall(
        "[\u202a-\u202e\u2066-\u2069]", text
    )


@given(NASTY)
def test_a_terminal_gets_no_control_characters_and_plain_text_as_it_is(text: str) -> None:
    shown = escaping.for_terminal(text)
    assert not controls(shown)
    assert "\n" not in escaping.one_line(text)
    if not controls(text) and text.isascii():
        assert shown == text


@given(NASTY)
def test_json_means_the_same_and_holds_no_control_characters(text: str) -> None:
    dumped = escaping.for_json(json.dumps({"name": text}, ensure_ascii=False))
    assert not controls(dumped)
    assert json.loads(dumped) == {"name": text}


@given(NASTY)
def test_html_says_the_text_and_has_no_tags(text: str) -> None:
    escaped = escaping.for_html(text)
    assert not re.search("[<>\"']", escaped)
    assert html.unescape(escaped) == escaping.for_terminal(text)


@given(NASTY)
def test_no_cell_of_a_spreadsheet_is_a_formula(text: str) -> None:
    cell = escaping.for_csv(text)
    assert not controls(cell)
    if cell[:1] in ("=", "+", "-", "@", "\t", "\n"):
        float(cell)
    file = io.StringIO()
    csv.writer(file).writerow([cell])
    assert next(csv.reader(io.StringIO(file.getvalue()))) == [cell]


@pytest.mark.parametrize("value", [-1.5, 3, None, True, "-2", "-1e-3", "plain"])
def test_numbers_and_plain_texts_stay_in_csv(value: object) -> None:
    assert escaping.for_csv(value) == value


@given(NASTY)
def test_markdown_has_one_line_without_markup(text: str) -> None:
    escaped = escaping.for_markdown(text)
    assert "\n" not in escaped
    assert not controls(escaped)
    assert not re.search(r"(?<!\\)(\\\\)*[`*_<>\[\]|~&]", escaped)
    assert not re.match(r"[#+-]\s|\d+[.)]\s", escaped)


@given(NASTY)
def test_nothing_closes_the_fence_of_a_code_block(text: str) -> None:
    fence = escaping.markdown_fence(text)
    assert len(fence) >= 3
    assert fence not in text


@pytest.mark.processes
@given(
    st.lists(NASTY.map(lambda text: text.replace("\0", "").encode("utf-8", "ignore").decode()), min_size=1, max_size=20)
)
@settings(max_examples=15, deadline=None)
def test_a_shell_reads_a_word_as_it_was(words: list[str]) -> None:
    escaped = [escaping.for_shell(word) for word in words]
    assert not any(controls(word) for word in escaped)
    script = f"printf '%s\\0' {' '.join(escaped)}"
    output = subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout
    assert output.split(b"\0")[:-1] == [word.encode() for word in words]
