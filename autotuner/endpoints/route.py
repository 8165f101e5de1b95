"""Which route load is sent to: completions, whose prompts have an exact length, or chat."""

from __future__ import annotations

from autotuner.endpoints.client import Client, NoAnswerError
from autotuner.endpoints.token import has_token, request_token
from autotuner.workload.prompts import EndpointKind

TIMEOUT_SECONDS = 10.0
"""Seconds to wait for one token of a route; after that the route is used without a check."""

UNSUPPORTED_STATUSES = (200, 400, 401, 403, 404, 405, 415, 422, 500, 501)
"""What servers answer without a token that lack the route, or do not offer it to this key, for this model or for
token ids as the prompt. Other statuses pass: they say that the server is busy, or still loads the model."""


def choose_route(client: Client, model: str) -> EndpointKind:
    """Completions, or chat where completions is unsupported and chat gives a token."""
    try:
        answer = request_token(client, model, "completions", TIMEOUT_SECONDS)
        if has_token(answer) or answer.status not in UNSUPPORTED_STATUSES:
            return "completions"
        if has_token(request_token(client, model, "chat", TIMEOUT_SECONDS)):
            return "chat"
    except NoAnswerError:
        pass
    return "completions"
