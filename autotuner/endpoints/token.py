"""One token of a running server, asked for exactly as the load does: a server may refuse token ids or a field."""

from __future__ import annotations

import secrets
from typing import Literal

from autotuner.core import RequestForm
from autotuner.endpoints.address import API_PATHS, Endpoint
from autotuner.endpoints.client import Answer, Client, NoAnswerError
from autotuner.workload.prompts import EndpointKind, Prompts

VOCAB_SIZE = 200
"""Token ids that any model has."""

PROMPT_TOKENS = 16

IDLE_TIMEOUT_SECONDS = 30.0
"""Seconds that an idle server may take for one token."""

TokenOutcome = Literal["token", "refusal", "fault", "silence"]


def request_token(
    client: Client,
    model: str,
    kind: EndpointKind,
    timeout: float,
    form: RequestForm | None = None,
    output_tokens: int = 1,
) -> Answer:
    """Request one token; NoAnswerError if no response comes within `timeout` seconds, at least 1."""
    salt = secrets.token_hex(8)
    prompts = Prompts(kind=kind, model=model, vocab_size=VOCAB_SIZE, salt=salt, phase="probe", form=form)
    return client.ask(API_PATHS[kind], prompts.body(0, PROMPT_TOKENS, output_tokens), max(timeout, 1.0))


def has_token(answer: Answer) -> bool:
    """Whether an answer is all JSON and has choices."""
    try:
        return answer.status == 200 and any(event.get("choices") for event in answer.events())
    except ValueError:
        return False


def probe_token(
    endpoint: Endpoint, kind: EndpointKind, timeout: float, form: RequestForm | None = None
) -> TokenOutcome:
    """Request one token of an idle server: "refusal" is a response without one, "fault" a 5xx.

    "silence" is no response within `timeout` seconds, at most IDLE_TIMEOUT_SECONDS.
    """
    try:
        with Client(endpoint.url, endpoint.headers, endpoint.tls) as client:
            answer = request_token(client, endpoint.model, kind, min(timeout, IDLE_TIMEOUT_SECONDS), form)
    except NoAnswerError:
        return "silence"
    if has_token(answer):
        return "token"
    return "fault" if answer.status >= 500 else "refusal"
