"""The parts of the set-up that need no download."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from tests.real import setup_vllm


def test_vllm_finds_its_version_under_its_own_name(tmp_path: Path) -> None:
    setup_vllm.name_it_vllm(tmp_path)
    [distribution] = importlib.metadata.distributions(name="vllm", path=[str(tmp_path)])
    assert distribution.version == f"{setup_vllm.VLLM}+cpu"
    setup_vllm.name_it_vllm(tmp_path)


def test_the_packages_of_an_environment_are_found(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    assert setup_vllm.site_packages(tmp_path) == packages


def test_the_model_is_made_by_a_program_that_is_here() -> None:
    compile(setup_vllm.TINY_MODEL.read_text(), setup_vllm.TINY_MODEL, "exec")
