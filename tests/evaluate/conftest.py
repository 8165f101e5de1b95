"""A simulated engine that autotune did not start."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from autotuner.launchers import ports, ready
from autotuner.launchers.external import ExternalServer

MODEL = "llama-3.1-8b"
TINY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 512,
    "max_position_embeddings": 2048,
}


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[str]:
    """Run a simulated engine that serves MODEL, with its log in `folder`; yields its URL."""
    port = ports.free_port()
    command = [sys.executable, "-m", "autotuner.simulate.server", "--load-seconds", "0", "--port", str(port)]
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen([*command, *arguments], stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        ready.wait_until_ready(ExternalServer(url), ready_path="/health", model=MODEL, timeout=30)
        yield url
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def sim_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("external")) as url:
        yield url


@pytest.fixture
def tiny_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose model has a vocabulary of 512."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "config.json").write_text(json.dumps(TINY))
    with running(folder, "--model", str(folder), "--served-model-name", MODEL) as url:
        yield url
