"""Errors with --json: their class, words and remedy on stdout, one document, beside the paragraph on stderr."""

from __future__ import annotations

import errno
import os

import pytest

from autotuner.cli.error_boundary import asks_for_json
from autotuner.core import Failure, FailureKind
from autotuner.errors import EngineError, FileError, MachineError, machine_fault


@pytest.mark.parametrize(
    ("arguments", "error_class", "words"),
    [
        (["report", "--json"], "run-folder", "There is no run"),
        (["report", "--format", "json"], "run-folder", "There is no run"),
        (["command", "--json"], "run-folder", "There is no run"),
        (["profiles", "show", "nothing", "--json"], "configuration", "'nothing'"),
        (["run", "--model", "/nowhere", "--runtime", "vllm", "--json"], "configuration", "/nowhere"),
        (["config", "show", "--set", "nothing=1", "--json"], "configuration", "nothing"),
        (["predict", "rank", "--model", "/nowhere", "--gpu", "h100", "--json"], "configuration", "/nowhere"),
        (["bench", "ftp://x", "--json"], "configuration", "ftp://x"),
    ],
)
def test_a_command_that_fails_says_so_in_json_too(autotune, arguments, error_class, words):
    result = autotune(*arguments)
    assert result.code not in (0, 70)
    error = result.data["error"]
    assert (error["class"], error["exit_code"]) == (error_class, result.code)
    assert words in error["message"]
    assert error["remedy"]
    assert "Error:" in result.err


def test_without_json_nothing_is_printed_on_stdout(autotune):
    assert autotune("report").out == ""


def test_an_engines_failure_gives_its_class():
    failure = Failure(FailureKind.DISK_FULL, "No space left on device", "Free some")
    record = EngineError(failure).record()
    assert (record["class"], record["remedy"]) == ("disk-full", "Free some.")
    assert "No space left on device." in str(record["message"])
    assert MachineError("No GPU").record() == {
        "class": "machine",
        "message": "No GPU.",
        "remedy": None,
        "exit_code": 3,
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--json"], True),
        (["--format", "json"], True),
        (["--format=json"], True),
        (["json"], False),
        (["--format", "csv", "json"], False),
        (["json", "--format"], False),
        ([], False),
    ],
)
def test_json_is_asked_for_by_either_option(arguments, expected):
    assert asks_for_json(arguments) is expected


LONG_NAME = "a" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--profile", "quick-test", "--dry-run", "--model", LONG_NAME),
        ("report", LONG_NAME),
        ("run", "--resume", LONG_NAME),
        ("compare", LONG_NAME, LONG_NAME),
        ("sla", "show", LONG_NAME),
        ("bench", "http://127.0.0.1:1", "--output", LONG_NAME),
        ("bench", "http://127.0.0.1:1/\udcff"),
        ("run", "--profile", "quick-test", "--dry-run", "--scenario", "file:/dev/zero"),
        ("sla", "run", "-f", "/dev/zero"),
        ("bench", "http://127.0.0.1:1", "--extra-body", '{"x":' + "[" * 900 + "]" * 900 + "}"),
    ],
)
def test_names_that_no_file_can_have_and_devices_are_refused(autotune, arguments):
    result = autotune(*arguments)
    assert result.code in (2, 3), result.err
    assert "did not expect" not in result.err
    assert len(result.err) < 2_000


def test_a_working_folder_that_is_gone_is_said(autotune, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    result = autotune("run", "--profile", "quick-test", "--dry-run", "--config", "own.yaml")
    assert result.code in (2, 3), result.err
    fault = machine_fault(FileNotFoundError(errno.ENOENT, "No such file or directory"))
    assert "started in is gone" in str(fault)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.EMFILE, "Too many open files"), 3),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), 3),
        (MemoryError(), 3),
        (OSError("without a number"), None),
        (ValueError("a defect"), None),
    ],
)
def test_what_the_machine_lacks_is_no_defect(error, code):
    fault = machine_fault(error)
    assert (fault.exit_code if fault else None) == code


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.EISDIR, errno.EACCES])
def test_an_error_of_the_file_system_is_said_with_its_path(number):
    error = FileError(OSError(number, os.strerror(number), "some/" + LONG_NAME))
    assert error.exit_code == (2 if number == errno.ENAMETOOLONG else 3)
    assert os.strerror(number) in str(error)
    assert LONG_NAME not in str(error)
