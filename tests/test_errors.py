"""The sentences of errors."""

import pytest

from autotuner.errors import (
    AutotuneError,
    as_sentence,
    file_error_reason,
    mask_credentials,
    pluralize,
    unknown_name_message,
)


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("The last 5 requests failed: timeout", "The last 5 requests failed: timeout."),
        ("The last 5 requests failed: timeout.", "The last 5 requests failed: timeout."),
        ("above max_model_len..", "above max_model_len."),
        ("known are a, b, ", "known are a, b."),
        ("did you mean 'a'?", "did you mean 'a'?"),
        ("Stop!", "Stop!"),
        ("as follows:", "as follows:"),
        ("a, b, ...", "a, b, ..."),
        ("spaces  ", "spaces."),
    ],
)
def test_a_sentence_ends_with_one_full_stop(text, ended):
    assert as_sentence(text) == ended


def test_the_parts_of_an_error_are_sentences():
    error = AutotuneError("Nothing ran..", why="it is full", remedy="Make room, ")
    assert str(error) == "Nothing ran. it is full. Make room."


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hh100", ["h100", "b200"], "Unknown GPU 'hh100'; did you mean 'h100'?"),
        ("nv", ["h100_nvl", "gb200_nvl72", "a10"], "Unknown GPU 'nv'; did you mean 'gb200_nvl72' or 'h100_nvl'?"),
        ("zzz", ["b", "a"], "Unknown GPU 'zzz'; choose from: a, b."),
        ("zzz", [f"g{n:02}" for n in range(40)], "Unknown GPU 'zzz'; there are 40, such as g00, g01, g02."),
        ("", ["b", "a"], "Unknown GPU ''; choose from: a, b."),
        ("zzz", ["b", "a", ""], "Unknown GPU 'zzz'; choose from: a, b."),
        ("--no-such-flag", ["--lora-strict-loading", "--x"], None),
        ("--no-such-flag", ["--no-async-scheduling", "--x"], None),
        ("--sed", ["--seed", "--x"], "Unknown GPU '--sed'; did you mean '--seed'?"),
    ],
)
def test_an_unknown_name_is_answered_with_those_near_it_or_with_a_few(name, options, message):
    message = message or f"Unknown GPU '{name}'; choose from: {', '.join(options)}."
    assert unknown_name_message("GPU", name, options) == message
    assert str(AutotuneError(unknown_name_message("GPU", name, options), why="So it is")) == f"{message} So it is."


def test_a_number_stands_before_its_noun_in_the_right_form():
    assert [pluralize(n, "trial") for n in (0, 1, 2, 1000)] == ["0 trials", "1 trial", "2 trials", "1,000 trials"]
    assert [pluralize(n, "launch", "launches") for n in (1, 2)] == ["1 launch", "2 launches"]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("at http://u:p@h:1/v1", "at http://***@h:1/v1"),
        ("not 'u:p@127.0.0.1:80'", "not '***@127.0.0.1:80'"),
        ("http://h/v1?api_key=s3&x=1", "http://h/v1?api_key=***&x=1"),
        ("http://u:p@h/v1?x=1&access_token=s3", "http://***@h/v1?x=1&access_token=***"),
        ("10:30 at 127.0.0.1:80", "10:30 at 127.0.0.1:80"),
    ],
)
def test_credentials_in_addresses_are_masked(text, masked):
    assert mask_credentials(text) == masked


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "No such file or directory", "rows.csv"), "No such file or directory."),
        (FileExistsError(17, "File exists", "rows.csv"), "A part of that path is a file, not a folder."),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "It is not text in UTF-8."),
        (ValueError("Expecting value"), "Expecting value."),
    ],
)
def test_why_a_file_cannot_be_read_is_said_without_numbers_of_the_system(error, reason):
    assert file_error_reason(error) == reason
