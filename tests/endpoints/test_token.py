"""Whether a running server gives a token."""

from __future__ import annotations

import pytest

from autotuner.endpoints.address import Endpoint
from autotuner.endpoints.token import probe_token
from tests.servers import ONE_TOKEN, ScriptedResponses, ServeResponses


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (ONE_TOKEN, "token"),
        ((200, '{"choices": [{"text": "a"}]}'), "token"),
        ((200, ': ping\n\ndata:\n\ndata: {"choices": [{"delta": {}}]}\n\ndata: [DONE]\n\n'), "token"),
        ((200, 'data: {"error": {"message": "no choices"}}\n\n'), "refusal"),
        ((200, '{"choices": []}'), "refusal"),
        ((200, 'data: {"choices": [{}'), "refusal"),
        ((200, "data: 3\n\n"), "refusal"),
        ((200, "the choices are yours"), "refusal"),
        ((404, '{"choices": [{}]}'), "refusal"),
        ((429, "later"), "refusal"),
        ((500, ""), "fault"),
        ((503, ONE_TOKEN[1]), "fault"),
    ],
)
def test_an_answer_is_a_token_a_refusal_or_a_fault(
    serve_responses: ServeResponses, response: tuple[int, str], expected: str
) -> None:
    url = serve_responses(ScriptedResponses(v1__completions=[response], v1__chat__completions=[response]))
    assert probe_token(Endpoint(url, "m"), "completions", 5.0) == expected
    assert probe_token(Endpoint(url, "m"), "chat", 5.0) == expected


def test_a_server_that_is_not_there_is_silent() -> None:
    assert probe_token(Endpoint("http://127.0.0.1:9", "m"), "completions", 5.0) == "silence"
