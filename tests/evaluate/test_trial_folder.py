"""The files of a trial."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.core import ServerSpec
from autotuner.deploy.shell import render_shell
from autotuner.evaluate.trial_folder import MAX_LOG_BYTES, TrialFolder

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@pytest.mark.processes
@given(words=st.lists(TEXT, max_size=4), value=TEXT)
def test_the_command_survives_the_shell_whatever_is_in_it(tmp_path_factory, words: list[str], value: str) -> None:
    folder = TrialFolder(tmp_path_factory.mktemp("trial"))
    argv = ("printenv", "-0", "SETTING") if not words else ("printf", "%s\\0", *words)
    spec = ServerSpec(None, argv, {"SETTING": value}, (), 1, "/health", "m")
    folder.save_command(spec, render_shell(spec))
    output = subprocess.run([folder.path / "command.sh"], capture_output=True, check=True).stdout
    expected = words or [value]
    assert output == b"".join(os.fsencode(word) + b"\0" for word in expected)


def test_a_secret_is_named_in_the_command_without_its_value(tmp_path: Path) -> None:
    spec = ServerSpec(None, ("engine",), {}, (), 1, "/health", "m", secrets=("HF_TOKEN", "OTHER"))
    TrialFolder(tmp_path).save_command(spec, render_shell(spec))
    assert (tmp_path / "command.sh").read_text() == (
        "#!/bin/sh\n# reads from the environment: HF_TOKEN OTHER\n"
        'HF_TOKEN="$HF_TOKEN" \\\n  OTHER="$OTHER" \\\n  engine\n'
    )


def test_the_log_is_read_from_the_mark(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path / "new")
    assert folder.read_log() == ""
    folder.mark_log()
    folder.log.write_text("starting\n")
    assert folder.read_log() == "starting\n"
    folder.mark_log()
    with folder.log.open("a") as file:
        file.write("crashing\n")
    assert folder.read_log() == "crashing\n"


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    folder.log.write_bytes(b"\xff" * MAX_LOG_BYTES + b"the end")
    text = folder.read_log()
    assert text.endswith("the end")
    assert len(text) == MAX_LOG_BYTES
