"""The flags of the engine at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotuner.engines import engine, installed
from autotuner.engines.flags import bundled_table
from autotuner.errors import ConfigError
from autotuner.experiment import Runtime

pytestmark = pytest.mark.processes

HELP = "usage: vllm serve\n\noptions:\n  --max-num-seqs N\n  --brand-new {a,b}\n  --quick, --no-quick\n"


def write_vllm(folder: Path, code: str) -> Path:
    path = folder / "vllm"
    path.write_text(f"#!/bin/sh\n{code}\n")
    path.chmod(0o755)
    return path


def test_the_engine_at_hand_decides_which_flags_there_are(bin_folder: Path) -> None:
    write_vllm(bin_folder, f"printf '{HELP}'")
    vllm = engine("vllm")
    table = vllm.flags(Runtime())
    assert table.origin == "help"
    assert set(table.flags) == {"--max-num-seqs", "--brand-new", "--quick"}
    assert table.flags["--max-num-seqs"].type == "int"
    vllm.check_parameters({"brand-new": ["b"], "quick": [False]}, Runtime())
    with pytest.raises(ConfigError, match="Unknown value 'c'"):
        vllm.check_parameters({"brand-new": ["c"]}, Runtime())
    with pytest.raises(ConfigError, match="--tensor-parallel-size"):
        vllm.check_parameters({"tp-size": [1]}, Runtime())


def test_an_engine_is_asked_once(bin_folder: Path, tmp_path: Path) -> None:
    count = tmp_path / "asked"
    write_vllm(bin_folder, f"echo asked >> {count}; printf '{HELP}'")
    assert engine("vllm").flags(Runtime()) == engine("vllm").flags(Runtime())
    assert count.read_text() == "asked\n"


def test_an_engine_that_changed_is_asked_again(bin_folder: Path) -> None:
    write_vllm(bin_folder, f"printf '{HELP}'")
    before = engine("vllm").flags(Runtime())
    folder = bin_folder.parent / "lib/python3.11/site-packages/vllm-9.9.9.dist-info"
    folder.mkdir(parents=True)
    after = engine("vllm").flags(Runtime())
    assert (before.version, after.version) == ("0.32.0", "9.9.9")


@pytest.mark.parametrize("code", ["exit 1", "", "echo no options here"])
def test_an_engine_that_does_not_tell_leaves_the_bundled_table(bin_folder: Path, code: str) -> None:
    write_vllm(bin_folder, code)
    assert engine("vllm").flags(Runtime()) == bundled_table("vllm")


def test_a_table_that_cannot_be_kept_costs_only_asking_again(
    bin_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    write_vllm(bin_folder, f"printf '{HELP}'")
    assert engine("vllm").flags(Runtime()).origin == "help"


def test_a_kept_table_that_is_torn_is_read_anew(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_vllm(bin_folder, f"printf '{HELP}'")
    engine("vllm").flags(Runtime())
    [kept] = (tmp_path / "cache").rglob("*.json")
    kept.write_text(kept.read_text()[:40])
    assert engine("vllm").flags(Runtime()).origin == "help"


def test_an_executable_that_is_not_there_is_not_found(bin_folder: Path) -> None:
    assert installed.find_executable(None, "vllm") is None
    assert installed.find_executable("/no/such/file", "vllm") is None
