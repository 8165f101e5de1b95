"""Engines that look installed, and a model to serve."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from autotuner.engines import ENGINES
from autotuner.experiment import Model
from autotuner.predict import parallel_rules

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "num_hidden_layers": 6,
    "vocab_size": 512,
}


@pytest.fixture(autouse=True)
def _fresh_geometry(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    parallel_rules.local_dimensions.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `bin` of an environment, alone on PATH."""
    folder = tmp_path / "env" / "bin"
    folder.mkdir(parents=True)
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def installed(bin_folder: Path) -> Path:
    """An executable for every engine, which prints nothing; returns their folder."""
    for name in (*ENGINES, "trtllm-serve"):
        executable(bin_folder / name, "")
    return bin_folder


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """A model folder with a configuration and no weights."""
    folder = tmp_path / "a model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    return Model(id_or_path=str(folder))


def executable(path: Path, code: str) -> Path:
    """Write a Python program as an executable file."""
    path.write_text(f"#!{sys.executable}\n{code}\n")
    path.chmod(0o755)
    return path
