"""What every question promises, whatever the server answers: its own errors, in time, and no secret in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from autotuner.core import LoadPoint, Workload
from autotuner.endpoints.address import Endpoint
from autotuner.endpoints.chat_token_fit import ChatTokenFit
from autotuner.endpoints.chat_tokens import fit_chat_tokens
from autotuner.endpoints.client import Client, NoAnswerError
from autotuner.endpoints.counters import read_counters
from autotuner.endpoints.models import find_served_model, list_models
from autotuner.endpoints.route import find_route
from autotuner.endpoints.token import probe_token
from autotuner.endpoints.token_ids import find_vocabulary
from autotuner.errors import EndpointError, UsageError
from tests.servers import ScriptedResponses, ServeResponses

KEY = "a-secret-key"
HEADERS = {"Authorization": f"Bearer {KEY}"}
PATHS = ("v1__models", "v1__completions", "v1__chat__completions", "metrics", "metrics__", "tokenize")


def listed_names(url: str, headers: Mapping[str, str]) -> tuple[str, ...]:
    with Client(url, headers) as client:
        return list_models(client).names


def route(url: str, headers: Mapping[str, str]) -> str:
    with Client(url, headers) as client:
        return find_route(client, "m").endpoint


def chat_fit(url: str, headers: Mapping[str, str]) -> ChatTokenFit:
    workload = Workload((LoadPoint("C(2,80,16)", concurrency=1),), endpoint="chat")
    return fit_chat_tokens(Endpoint(url, "m", headers), workload)


QUESTIONS: dict[str, tuple[Callable[[str, Mapping[str, str]], Any], Any]] = {
    "models": (listed_names, NoAnswerError),
    "served model": (lambda url, headers: find_served_model(url, headers), (EndpointError, UsageError)),
    "route": (route, "completions"),
    "counters": (lambda url, headers: read_counters(url, headers=headers), {}),
    "token ids": (lambda url, headers: find_vocabulary(url, headers, "m", assumed=7).origin, "assumed"),
    "chat tokens": (chat_fit, ChatTokenFit()),
    "token": (lambda url, headers: probe_token(Endpoint(url, "m", headers), "completions", 5.0) == "token", False),
}
"""What is asked, and what comes of a server that cannot answer: a value or an error."""

ANSWERS = {
    "an empty answer": (200, ""),
    "a page of a proxy": (502, "<html><body>Bad Gateway</body></html>"),
    "a page of its own": (200, "<html><body>Welcome</body></html>"),
    "a refused key": (401, f'{{"error": {{"message": "Incorrect API key {KEY}"}}}}'),
    "an error of its own": (500, f"Traceback: {KEY}"),
    "a number": (200, "3"),
    "a list": (200, "[1, 2]"),
    "null": (200, "null"),
    "odd members": (200, '{"data": [null], "choices": null, "usage": 3, "tokens": "x", "error": [1]}'),
    "deep nesting": (200, '{"data": ' + "[" * 100_000),
    "a deep list": (200, "[" * 100_000),
    "a broken stream": (200, 'data: {"choices": [{'),
    "a moved server": (307, ""),
}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("answer", [*ANSWERS, "nothing"])
def test_a_server_that_does_not_answer_a_question_is_told_from_one_that_does(
    serve_responses: ServeResponses, question: str, answer: str
) -> None:
    ask, expected = QUESTIONS[question]
    url = "http://127.0.0.1:9"
    if answer != "nothing":
        url = serve_responses(ScriptedResponses(**{path: [ANSWERS[answer]] for path in PATHS}))
    if isinstance(expected, type | tuple):
        with pytest.raises(expected) as caught:
            ask(url, HEADERS)
        assert KEY not in str(caught.value)
    else:
        assert ask(url, HEADERS) == expected
