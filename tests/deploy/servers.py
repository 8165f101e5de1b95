"""A server with all that can be rendered, for tests of deployments."""

from __future__ import annotations

from typing import Any

from autotuner.core import Mount, ServerSpec


def spec(**changes: Any) -> ServerSpec:
    """vLLM on two GPUs with a mount, an environment variable and a secret."""
    fields: dict[str, Any] = {
        "image": "vllm/vllm-openai:v0.32.0",
        "argv": ("vllm", "serve", "/models/tiny", "--tensor-parallel-size", "2", "--enforce-eager"),
        "container_argv": ("/models/tiny", "--tensor-parallel-size", "2", "--enforce-eager"),
        "env": {"VLLM_LOGGING_LEVEL": "INFO"},
        "mounts": (Mount("/data/tiny", "/models/tiny"),),
        "port": 8000,
        "ready_path": "/health",
        "served_model": "tiny",
        "gpus": 2,
        "secrets": ("HF_TOKEN",),
    }
    return ServerSpec(**(fields | changes))
