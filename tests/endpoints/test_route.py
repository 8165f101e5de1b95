"""Which route load is sent to."""

from __future__ import annotations

import pytest

from autotuner.endpoints.client import Client
from autotuner.endpoints.route import choose_route
from tests.servers import ONE_TOKEN, ScriptedResponses, ServeResponses


def chosen(url: str) -> str:
    with Client(url) as client:
        return choose_route(client, "m")


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 405, 415, 422, 500, 501])
@pytest.mark.parametrize("body", ["", "<html>", '{"error": {"message": "no"}}'])
def test_a_server_that_only_chats_is_asked_to_chat(serve_responses: ServeResponses, status: int, body: str) -> None:
    assert (
        chosen(serve_responses(ScriptedResponses(v1__completions=[(status, body)], v1__chat__completions=[ONE_TOKEN])))
        == "chat"
    )


@pytest.mark.parametrize("status", [408, 429, 502, 503])
def test_a_server_that_is_busy_keeps_its_better_route(serve_responses: ServeResponses, status: int) -> None:
    responses = ScriptedResponses(v1__completions=[(status, "later")], v1__chat__completions=[ONE_TOKEN])
    assert chosen(serve_responses(responses)) == "completions"
    assert responses.requested_paths == ["/v1/completions"]


def test_a_server_that_gives_tokens_is_asked_once(serve_responses: ServeResponses) -> None:
    responses = ScriptedResponses(v1__completions=[ONE_TOKEN], v1__chat__completions=[ONE_TOKEN])
    assert chosen(serve_responses(responses)) == "completions"
    assert responses.requested_paths == ["/v1/completions"]


@pytest.mark.parametrize("chat", [(404, ""), (500, "oops"), (200, "<html>")])
def test_a_server_that_gives_no_token_is_left_to_the_load(
    serve_responses: ServeResponses, chat: tuple[int, str]
) -> None:
    url = serve_responses(ScriptedResponses(v1__completions=[(404, "no")], v1__chat__completions=[chat]))
    assert chosen(url) == "completions"


def test_a_server_that_is_not_there_is_left_to_the_load() -> None:
    assert chosen("http://127.0.0.1:9") == "completions"
