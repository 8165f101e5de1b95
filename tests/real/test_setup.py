"""The parts of the set-up that need no download."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

import pytest

from tests.real import setup_sglang, setup_vllm


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


def test_sglang_finds_its_kernels_and_no_operators_of_torchvision(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "_meta_registrations.py").write_text("raise RuntimeError")
    setup_sglang.fit_to_cpu(tmp_path)
    assert (tmp_path / "torchvision" / "_meta_registrations.py").read_text() == ""
    spec = importlib.util.spec_from_file_location("kernels", tmp_path / "sgl_kernel" / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    kernels = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kernels)
    with pytest.raises(NotImplementedError, match="gelu_and_mul"):
        kernels.gelu_and_mul()
