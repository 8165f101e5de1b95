"""Which route load is sent to: completions, whose prompts have an exact length, or chat."""

from __future__ import annotations

from autotuner.endpoints.client import Client, NoAnswerError
from autotuner.endpoints.token import has_token, request_token
from autotuner.workload.prompts import EndpointKind

TIMEOUT_SECONDS = 10.0
"""Seconds to wait for one token of a route; after that the route is used without a check."""

UNSUPPORTED_STATUSES = (400, 404, 405, 415, 422, 501)
"""What servers answer that lack the route, or do not offer it for this model or for token ids as the prompt."""


def choose_route(client: Client, model: str) -> EndpointKind:
    """Completions, or chat where completions is unsupported and chat gives a token."""
    try:
        answer = request_token(client, model, "completions", TIMEOUT_SECONDS)
        if answer.status in UNSUPPORTED_STATUSES and has_token(request_token(client, model, "chat", TIMEOUT_SECONDS)):
            return "chat"
    except NoAnswerError:
        pass
    return "completions"
