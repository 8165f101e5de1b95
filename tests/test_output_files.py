"""A file that is written is there whole, or as it was before."""

import errno
import os
from pathlib import Path

import pytest

from autotuner.output_files import write_whole


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "baseline.json"
    path.write_text("old")
    return path


def test_a_file_is_replaced_with_its_permissions(file):
    file.chmod(0o640)
    write_whole(file, b"new")
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o640
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_interrupted_anywhere_the_old_file_stays(file, monkeypatch, call):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "draft")

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="No space") as failed:
        write_whole(file, b"new")
    assert failed.value.filename == str(file)
    assert file.read_text() == "old"
    assert list(file.parent.iterdir()) == [file]


def test_a_link_stays_one_and_its_target_is_replaced(file):
    link = file.with_name("link")
    link.symlink_to(file.name)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert file.read_text() == "new"


def test_a_device_is_written_to():
    write_whole(Path(os.devnull), b"new")
    assert not Path(os.devnull).is_file()


def test_a_file_in_a_folder_that_takes_no_new_file_is_written_in_place(file, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    write_whole(file, b"new")
    assert file.read_text() == "new"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("name", "number"), [("folder", errno.EISDIR), ("missing/file", errno.ENOENT), ("x" * 300, errno.ENAMETOOLONG)]
)
def test_what_cannot_be_a_file_is_named_in_the_error(tmp_path, name, number):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"folder|missing|xxx") as failed:
        write_whole(tmp_path / name, b"new")
    assert failed.value.errno == number
    assert failed.value.filename == str(tmp_path / name)


def test_a_name_may_have_all_characters_that_it_can(tmp_path):
    for name in ("x" * 255, "\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 85):
        write_whole(tmp_path / name, b"new")
        assert (tmp_path / name).read_bytes() == b"new"
