"""What is read of files that others wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autotuner.input_files import expand_home, read_json, read_text


def test_text_is_read_from_files_and_pipes_without_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("é", "utf-8-sig")
    assert read_text(tmp_path / "file") == "é"
    reading, writing = os.pipe()
    os.write(writing, b"of a pipe")
    os.close(writing)
    try:
        assert read_text(Path(f"/dev/fd/{reading}")) == "of a pipe"
    finally:
        os.close(reading)


def test_devices_and_long_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="It is a device"):
        read_text(Path("/dev/zero"), max_bytes=None)
    (tmp_path / "long").write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(OSError, match="more than 1 MiB"):
        read_text(tmp_path / "long", 1 << 20)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{", "9" * 5_000])
def test_what_is_no_json_is_a_value_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(ValueError, match=r"nested too deeply|Expecting|Exceeds"):
        read_json(tmp_path / "file")


def test_a_home_that_is_nobodys_is_a_path_like_any_other():
    assert expand_home("~no-such-user-here/x") == Path("~no-such-user-here/x")
    assert expand_home("~/x") == Path.home() / "x"
