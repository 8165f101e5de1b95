"""What a server that runs already serves, and at which route."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from autotuner.errors import EndpointError, UsageError
from autotuner.launchers import endpoint
from tests.servers import ScriptedResponses

Serve = Callable[[ScriptedResponses], str]
TOKEN = (200, 'data: {"choices": [{"text": "a"}]}\n\n')


def models(*names: str, owner: str = "vllm") -> list[tuple[int, str]]:
    return [(200, json.dumps({"data": [{"id": name, "owned_by": owner} for name in names]}))]


def test_the_only_model_is_found(serve_responses: Serve) -> None:
    url = serve_responses(ScriptedResponses(v1__models=models("a"), v1__completions=[TOKEN]))
    assert endpoint.find_served_model(url, {}) == endpoint.ServedModel("a", "completions", is_simulated=False)


def test_the_simulated_engine_is_known_for_what_it_is(serve_responses: Serve) -> None:
    url = serve_responses(ScriptedResponses(v1__models=models("a", owner="autotune-sim"), v1__completions=[TOKEN]))
    assert endpoint.find_served_model(url, {}).is_simulated


@pytest.mark.parametrize("refusal", [400, 404, 405, 422])
def test_a_server_that_only_chats_is_asked_to_chat(serve_responses: Serve, refusal: int) -> None:
    url = serve_responses(
        ScriptedResponses(v1__models=models("a"), v1__completions=[(refusal, "no")], v1__chat__completions=[TOKEN])
    )
    assert endpoint.find_served_model(url, {}).endpoint == "chat"
    assert endpoint.find_served_model(url, {}, endpoint="completions").endpoint == "completions"


def test_a_server_that_gives_no_token_is_left_to_the_load(serve_responses: Serve) -> None:
    url = serve_responses(ScriptedResponses(v1__models=models("a"), v1__completions=[(500, "oops")]))
    assert endpoint.find_served_model(url, {}).endpoint == "completions"


def test_several_models_are_named(serve_responses: Serve) -> None:
    url = serve_responses(ScriptedResponses(v1__models=models("a", "b"), v1__completions=[TOKEN]))
    with pytest.raises(UsageError, match=r"serves 2 models\. They are: a, b\. Choose one with --model"):
        endpoint.find_served_model(url, {})
    assert endpoint.find_served_model(url, {}, model="b").model == "b"


def test_a_model_that_is_not_served_is_told_what_is(serve_responses: Serve) -> None:
    with pytest.raises(EndpointError, match=r"does not serve 'c'\. It serves: a, b"):
        endpoint.find_served_model(serve_responses(ScriptedResponses(v1__models=models("a", "b"))), {}, model="c")


@pytest.mark.parametrize("answer", [(404, ""), (200, "<html>"), (200, "[]"), (200, '{"data": 3}'), (200, "3")])
def test_a_server_that_lists_no_models_needs_one_named(serve_responses: Serve, answer: tuple[int, str]) -> None:
    url = serve_responses(ScriptedResponses(v1__models=[answer], v1__chat__completions=[TOKEN]))
    with pytest.raises(UsageError, match="Name the model with --model"):
        endpoint.find_served_model(url, {})
    assert endpoint.find_served_model(url, {}, model="m") == endpoint.ServedModel("m", "chat", is_simulated=False)


@pytest.mark.parametrize(("status", "message"), [(401, "refuses"), (403, "refuses"), (503, "Nothing that serves")])
def test_a_server_that_refuses_is_told_apart_from_one_that_is_not_there(
    serve_responses: Serve, status: int, message: str
) -> None:
    url = serve_responses(ScriptedResponses(v1__models=[(status, "")]))
    with pytest.raises(EndpointError, match=message):
        endpoint.find_served_model(url, {})


def test_a_server_that_is_not_there_is_left_to_the_load_when_the_model_is_known() -> None:
    with pytest.raises(EndpointError, match="Nothing that serves a model answers"):
        endpoint.find_served_model("http://127.0.0.1:9", {})
    assert endpoint.find_served_model("http://127.0.0.1:9", {}, model="m").model == "m"


def test_whether_a_token_comes_is_asked_as_load_asks(serve_responses: Serve) -> None:
    url = serve_responses(ScriptedResponses(v1__completions=[TOKEN, (429, "later")]))
    assert endpoint.gives_token(url, {}, "m", "completions", 5.0)
    assert not endpoint.gives_token(url, {}, "m", "completions", 5.0)
    assert not endpoint.gives_token("http://127.0.0.1:9", {}, "m", "completions", 5.0)
