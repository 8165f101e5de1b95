"""Which version of its engine a running server says it is."""

from __future__ import annotations

from autotuner.endpoints.client import Client, NoAnswerError

VERSION_PATHS = ("/version", "/server_info", "/get_server_info")
"""Paths of vLLM and TensorRT-LLM, of SGLang, and of SGLang before 0.5."""

TIMEOUT_SECONDS = 2.0


def find_version(client: Client) -> str | None:
    """The version that a server answers to one of the questions of the known engines; None where none is answered."""
    for path in VERSION_PATHS:
        try:
            answer = client.ask_root(path, timeout=TIMEOUT_SECONDS)
            answer.require_ok()
            version = answer.json()["version"]
        except (NoAnswerError, ValueError, KeyError, TypeError):
            continue
        if isinstance(version, str) and version:
            return version
    return None
