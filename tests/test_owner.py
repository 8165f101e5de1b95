"""Whether the owner of a server is gone, also where it cannot be looked at."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from autotuner import owner

HIDING_ERRORS = {"hidepid=1": PermissionError, "hidepid=2": FileNotFoundError, "ended meanwhile": ProcessLookupError}


@pytest.fixture(params=sorted(HIDING_ERRORS))
def hidden_proc(request, monkeypatch):
    """A /proc that does not show other processes."""
    this_process = owner.this_process()

    def refuse(path, *args, **kwargs):
        raise HIDING_ERRORS[request.param](str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(owner, "this_process", lambda: this_process)
    return this_process


@pytest.mark.parametrize(("error", "is_gone"), [(None, False), (PermissionError, False), (ProcessLookupError, True)])
def test_a_hidden_owner_is_gone_only_if_its_pid_is_free(hidden_proc, monkeypatch, error, is_gone):
    def signal(pid, number):
        assert number == 0
        if error:
            raise error

    monkeypatch.setattr(os, "kill", signal)
    assert replace(hidden_proc, pid=4_000_000).is_gone is is_gone


def test_an_owner_of_another_boot_or_start_time_is_gone_and_of_an_unknown_one_is_not():
    this_process = owner.this_process()
    assert not this_process.is_gone
    assert replace(this_process, start_time="1").is_gone
    assert replace(this_process, boot_id="before").is_gone
    assert not replace(this_process, start_time="").is_gone
    assert not replace(this_process, host="elsewhere", start_time="1").is_gone
