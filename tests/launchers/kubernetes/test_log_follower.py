"""A pod's log is written once, whatever connections repeat."""

from __future__ import annotations

from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from autotuner.launchers.kubernetes.log_follower import LogFollower

NO_CLIENT: Any = None


@pytest.fixture
def written(tmp_path: Path):
    """Copy reads of a log, and give what was written."""

    def copy(*reads: list[str]) -> str:
        path = tmp_path / "log"
        with FileIO(path, "wb") as output:
            follower = LogFollower(NO_CLIENT, "a-pod", output)
            for read in reads:
                follower.copy(read)
        return path.read_text()

    return copy


def test_timestamps_are_left_out(written):
    assert written(["2026-01-01T00:00:00.5Z one\n", "2026-01-01T00:00:01Z two\n"]) == "one\ntwo\n"


def test_a_second_read_repeats_nothing(written):
    first = ["2026-01-01T00:00:00.12Z one\n", "2026-01-01T00:00:00.123Z two\n"]
    assert written(first, [*first, "2026-01-01T00:00:00.2Z three\n"]) == "one\ntwo\nthree\n"


def test_lines_with_one_timestamp_are_all_written(written):
    stamp = "2026-01-01T00:00:00.1+02:00"
    first = [f"{stamp} one\n", f"{stamp} two\n"]
    assert written(first, [*first, f"{stamp} three\n"]) == "one\ntwo\nthree\n"


def test_parts_of_a_line_that_carriage_returns_split_stay_with_it(written):
    progress = ["2026-01-01T00:00:00.1Z 1%\n", "50%\n", "100%\n"]
    assert written(progress, progress) == "1%\n50%\n100%\n"
