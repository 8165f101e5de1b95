from __future__ import annotations

import pytest

from autotuner.load.error_messages import readable_message

KEY = {"Authorization": "Bearer sk-very-secret"}


@pytest.mark.parametrize("before", range(200, 260))
def test_a_secret_at_the_end_of_what_is_shown_is_struck_out_before_the_rest_is_cut_off(before: int):
    shown = readable_message("x" * before + "sk-very-secret" + "y" * 300, KEY)
    assert "sk-" not in shown
    assert shown.endswith("...")
    assert len(shown) == 240


def test_control_characters_are_escaped_and_line_breaks_are_blanks():
    assert readable_message("one\n\ttwo\x1b[2J\u2028three\x00", KEY) == r"one two\x1b[2J\u2028three\x00"


def test_a_short_message_is_whole():
    assert readable_message("Bearer sk-very-secret is not known", KEY) == "***** is not known"
