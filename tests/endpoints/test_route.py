"""Which route load is sent to, and how its requests are written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from autotuner.core import RequestForm
from autotuner.endpoints import patience
from autotuner.endpoints.client import Answer, Client
from autotuner.endpoints.route import Route, find_route
from autotuner.errors import EndpointError
from tests.servers import ONE_TOKEN, ReceivedRequest, ScriptedResponses, Server, ServeResponses, status

Serve = Callable[..., Server]
Judge = Callable[[ReceivedRequest], tuple[int, str] | None]
"""The error that a server answers to a request; None for a token."""


def found(url: str, *options: Any, **named: Any) -> Route:
    with Client(url) as client:
        return find_route(client, "m", *options, **named)


def served(serve: Serve, judge: Judge) -> Server:
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        refusal = judge(request)
        code, text = refusal or (200, ONE_TOKEN[1])
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (code, len(text.encode()), text.encode()))

    return serve(behave)


def is_chat(request: ReceivedRequest) -> bool:
    return request.path == "/v1/chat/completions"


def has_token_ids(request: ReceivedRequest) -> bool:
    return isinstance(request.body.get("prompt"), list)


@pytest.mark.parametrize("code", [200, 400, 401, 403, 404, 405, 415, 422, 500, 501])
@pytest.mark.parametrize("body", ["", "<html>", '{"error": {"message": "no"}}'])
def test_a_server_that_only_chats_is_asked_to_chat(serve_responses: ServeResponses, code: int, body: str) -> None:
    responses = ScriptedResponses(v1__completions=[(code, body)], v1__chat__completions=[ONE_TOKEN])
    route = found(serve_responses(responses))
    assert (route.endpoint, route.form, route.gives_token) == ("chat", RequestForm(), True)
    assert f"/v1/completions answered {code}" in " ".join(route.remarks(RequestForm()))


@pytest.mark.parametrize("code", [408, 429, 502, 503])
def test_a_server_that_is_busy_keeps_its_better_route(serve_responses: ServeResponses, code: int) -> None:
    responses = ScriptedResponses(v1__completions=[(code, "later")], v1__chat__completions=[ONE_TOKEN])
    assert found(serve_responses(responses)).endpoint == "completions"
    assert responses.requested_paths == ["/v1/completions"]


def test_a_server_that_gives_tokens_is_asked_once(serve_responses: ServeResponses) -> None:
    responses = ScriptedResponses(v1__completions=[ONE_TOKEN], v1__chat__completions=[ONE_TOKEN])
    route = found(serve_responses(responses))
    assert (route.endpoint, route.form, route.remarks(RequestForm())) == ("completions", RequestForm(), ())
    assert responses.requested_paths == ["/v1/completions"]


@pytest.mark.parametrize("chat", [(404, "none"), (500, "oops"), (200, "<html>")])
def test_a_server_that_gives_no_token_has_all_its_answers_named(
    serve_responses: ServeResponses, chat: tuple[int, str]
) -> None:
    url = serve_responses(ScriptedResponses(v1__completions=[(404, "no")], v1__chat__completions=[chat]))
    route = found(url)
    assert route.is_refused
    assert route.cause == f"/v1/completions answered 404: no. /v1/chat/completions answered {chat[0]}: {chat[1]}."


def test_a_server_that_is_not_there_is_left_to_the_load() -> None:
    route = found("http://127.0.0.1:9")
    assert (route.endpoint, route.is_refused) == ("completions", False)


TOKEN_ID_REFUSALS = [
    (400, "json: cannot unmarshal array into Go struct field CompletionRequest.prompt of type string"),
    (422, json.dumps({"detail": [{"loc": ["body", "prompt", "str"], "msg": "Input should be a valid string"}]})),
    (500, "OpenAIException - Unmapped prompt format. Your prompt is neither a list of strings nor a string."),
    (500, "Internal Server Error"),
    (404, ""),
]


@pytest.mark.parametrize("refusal", TOKEN_ID_REFUSALS)
def test_a_server_that_takes_no_token_ids_is_sent_text(serve: Serve, refusal: tuple[int, str]) -> None:
    server = served(serve, lambda request: refusal if has_token_ids(request) else None)
    route = found(server.url)
    assert (route.endpoint, route.form) == ("completions", RequestForm(prompts="text"))
    assert isinstance(server.requests[-1].body["prompt"], str)
    assert "refuses token ids" in route.remarks(RequestForm())[0]


@pytest.mark.parametrize("code", [502, 503])
def test_a_dead_server_behind_a_router_is_the_cause_and_not_its_refusal_of_token_ids(serve: Serve, code: int) -> None:
    def judge(request: ReceivedRequest) -> tuple[int, str]:
        return (422, "no token ids") if has_token_ids(request) else (code, "no prefill server is healthy")

    route = found(served(serve, judge).url)
    assert route.is_refused
    assert route.cause.startswith(f"/v1/completions answered {code}: no prefill server is healthy")
    assert "422" not in route.cause
    assert route.form.prompts == "text"


# fields that a server refuses

FIELD_WORDS: dict[str, Callable[[str], tuple[int, str]]] = {
    "OpenAI": lambda name: (
        400,
        json.dumps({"error": {"message": f"Unsupported parameter: '{name}'.", "param": name, "code": "unsupported"}}),
    ),
    "FastAPI": lambda name: (
        422,
        json.dumps(
            {
                "detail": [
                    {
                        "type": "extra_forbidden",
                        "loc": ["body", name],
                        "msg": "Extra inputs are not permitted",
                        "input": {"ignore_eos": True, "stream_options": 1, "temperature": 0, "max_tokens": 1},
                    }
                ]
            }
        ),
    ),
    "a list of what is taken": lambda name: (
        400,
        f"Unknown field {name}; known are model, messages, max_tokens, temperature, stream, stream_options",
    ),
    "what is taken first": lambda name: (400, f"of max_tokens, temperature, ignore_eos, stream_options: no {name}"),
    "all that was sent": lambda name: (400, "keys model, temperature, stream_options, max_tokens, ignore_eos"),
    "a stream": lambda name: (200, f'data: {{"error": {{"message": "{name} is not supported"}}}}\n\n'),
    "no name": lambda name: (400, "Bad Request"),
    "a fault": lambda name: (500, ""),
}


@pytest.mark.parametrize("words", FIELD_WORDS)
@pytest.mark.parametrize("name", ["ignore_eos", "stream_options", "temperature"])
@pytest.mark.parametrize("chat_only", [False, True])
def test_a_field_that_the_server_refuses_is_left_out_and_no_other(
    serve: Serve, words: str, name: str, chat_only: bool
) -> None:
    def judge(request: ReceivedRequest) -> tuple[int, str] | None:
        if chat_only and not is_chat(request):
            return 404, "no such route"
        return FIELD_WORDS[words](name) if name in request.body else None

    server = served(serve, judge)
    route = found(server.url)
    assert (route.endpoint, route.gives_token) == ("chat" if chat_only else "completions", True)
    assert route.form == RequestForm(omit=(name,))
    assert f"The server refuses {name}, which is left out" in route.remarks(RequestForm())[-1]
    assert len(server.requests) <= 12


@pytest.mark.parametrize("words", ["OpenAI", "FastAPI", "no name"])
def test_several_fields_are_left_out_one_after_another(serve: Serve, words: str) -> None:
    def judge(request: ReceivedRequest) -> tuple[int, str] | None:
        refused = [name for name in ("temperature", "ignore_eos") if name in request.body]
        return FIELD_WORDS[words](refused[0]) if refused else None

    route = found(served(serve, judge).url)
    assert route.gives_token
    assert set(route.form.omit) == {"temperature", "ignore_eos"}


@pytest.mark.parametrize("words", ["OpenAI", "a list of what is taken", "no name"])
def test_the_older_limit_of_the_length_is_exchanged_for_the_newer_one(serve: Serve, words: str) -> None:
    def judge(request: ReceivedRequest) -> tuple[int, str] | None:
        if not is_chat(request):
            return 404, "This is a chat model"
        return FIELD_WORDS[words]("max_tokens") if "max_tokens" in request.body else None

    server = served(serve, judge)
    route = found(server.url)
    assert route.form == RequestForm(length_field="max_completion_tokens")
    assert server.requests[-1].body["max_completion_tokens"] == 1
    assert route.remarks(RequestForm())[-1].endswith("max_completion_tokens is sent instead.")


def test_a_server_that_takes_no_limit_of_the_length_is_sent_none(serve: Serve) -> None:
    def judge(request: ReceivedRequest) -> tuple[int, str] | None:
        names = [name for name in ("max_tokens", "max_completion_tokens") if name in request.body]
        return FIELD_WORDS["OpenAI"](names[0]) if names else None

    route = found(served(serve, judge).url)
    assert not route.form.limits_length
    assert "where the model ends them" in route.remarks(RequestForm())[-1]


def test_a_limit_that_is_too_low_for_the_server_is_raised_and_not_left_out(serve: Serve) -> None:
    def judge(request: ReceivedRequest) -> tuple[int, str] | None:
        return (400, "max_tokens must be at least 16") if request.body["max_tokens"] < 16 else None

    route = found(served(serve, judge).url)
    assert (route.gives_token, route.form) == (True, RequestForm())


def test_a_limit_may_be_too_low_under_its_newer_name(serve: Serve) -> None:
    def judge(request: ReceivedRequest) -> tuple[int, str] | None:
        if "max_tokens" in request.body:
            return FIELD_WORDS["OpenAI"]("max_tokens")
        is_low = request.body["max_completion_tokens"] < 16
        return (400, "Could not finish: max_tokens or model output limit was reached. Try higher.") if is_low else None

    route = found(served(serve, judge).url)
    assert (route.gives_token, route.form) == (True, RequestForm(length_field="max_completion_tokens"))


def test_a_field_of_the_users_own_is_not_left_out(serve: Serve) -> None:
    def judge(request: ReceivedRequest) -> tuple[int, str] | None:
        return (400, "Unrecognized request argument supplied: min_p") if "min_p" in request.body else None

    with pytest.raises(EndpointError, match="refuses the field 'min_p' of the extra body"):
        found(served(serve, judge).url, form=RequestForm(extra_body={"min_p": 0.1}))


def test_fields_that_are_left_out_anyway_are_not_asked_with(serve: Serve) -> None:
    server = served(serve, lambda request: (400, "no") if "ignore_eos" in request.body else None)
    form = RequestForm(omit=("ignore_eos",), extra_body={"stream_options": {"x": 1}, "min_p": 0.1})
    assert found(server.url, form=form).form == form
    (request,) = server.requests
    assert request.body["stream_options"] == {"include_usage": True, "x": 1}
    assert request.body["min_p"] == 0.1


@pytest.mark.parametrize("kind", ["completions", "chat"])
def test_a_named_route_is_the_only_one_that_is_asked(serve: Serve, kind: str) -> None:
    server = served(serve, lambda request: (404, "no"))
    route = found(server.url, kind)
    assert (route.endpoint, route.is_refused) == (kind, True)
    assert {is_chat(request) for request in server.requests} == {kind == "chat"}


@pytest.mark.parametrize(
    "text", ['data: {"choices": [{"text": "a"}]}\n\n', '{"choices": [{"text": "a"}], "usage": null}']
)
def test_a_server_that_counts_no_tokens_is_said_to(serve_responses: ServeResponses, text: str) -> None:
    route = found(serve_responses(ScriptedResponses(v1__completions=[(200, text)])))
    assert route.remarks(RequestForm()) == (
        "The server sends no token counts: tokens are counted by the events of the stream.",
    )


# models that are not loaded yet


def test_a_model_that_is_being_loaded_is_waited_for(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patience, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(patience, "REPORT_SECONDS", 0.02)
    caplog.set_level("INFO", logger="autotuner")
    server = served(serve, lambda request: (503, "Loading model") if request.number < 5 else None)
    assert found(server.url).gives_token
    assert any(record.message.startswith("waiting for the first token, ") for record in caplog.records)


@pytest.mark.parametrize(
    ("words", "is_waited_for"),
    [
        ("Loading model", True),
        ("The model m is currently loading", True),
        ("Model with name m is not ready", True),
        ("server is starting up", True),
        ("the load balancer has no healthy upstream", False),
        ("The engine is overloaded", False),
        ("No available prefill workers", False),
    ],
)
def test_what_a_server_says_tells_whether_it_is_waited_for(words: str, is_waited_for: bool) -> None:
    assert patience.is_loading(Answer(503, words, f"/v1/completions answered 503: {words}")) == is_waited_for
    assert not patience.is_loading(Answer(500, words, words))


def test_a_model_that_is_loaded_for_too_long_is_left_to_the_load(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "POLL_SECONDS", 0.6)
    server = serve(status(503, "The model is loading"))
    route = found(server.url, time_limit=0.1)
    assert (route.endpoint, route.gives_token, route.is_refused) == ("completions", False, False)
