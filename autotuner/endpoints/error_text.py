"""A server's own words about an error."""

from __future__ import annotations

import json

MAX_LENGTH = 300


def error_text(body: str) -> str:
    """The message in the body of an error response, which may be JSON or plain text."""
    text = body[:4096].strip()
    try:
        return error_message(json.loads(text))
    except (ValueError, RecursionError):
        return text[:MAX_LENGTH].strip()


def error_message(data: object) -> str:
    """The message in a server's error object, as vLLM, SGLang, OpenAI and FastAPI write it."""
    while isinstance(data, dict):
        data = data.get("error") or data.get("message") or data.get("detail") or json.dumps(data)
    return str(data)[:MAX_LENGTH]
