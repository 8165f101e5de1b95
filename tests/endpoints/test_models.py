"""Which model a running server serves."""

from __future__ import annotations

import json

import pytest

from autotuner.endpoints.client import Client
from autotuner.endpoints.models import ModelList, ServedModel, find_served_model, list_models
from autotuner.errors import EndpointError, UsageError
from tests.servers import ONE_TOKEN, ScriptedResponses, ServeResponses, served_models


def test_the_only_model_is_found(serve_responses: ServeResponses) -> None:
    url = serve_responses(ScriptedResponses(v1__models=served_models("a"), v1__completions=[ONE_TOKEN]))
    assert find_served_model(url, {}) == ServedModel("a", "completions", is_simulated=False)


def test_the_simulated_engine_is_known_for_what_it_is(serve_responses: ServeResponses) -> None:
    url = serve_responses(
        ScriptedResponses(v1__models=served_models("a", owner="autotune-sim"), v1__completions=[ONE_TOKEN])
    )
    assert find_served_model(url, {}).is_simulated


def test_a_url_may_end_in_v1(serve_responses: ServeResponses) -> None:
    with Client(serve_responses(ScriptedResponses(v1__models=served_models("a", "b"))) + "/v1/") as client:
        assert list_models(client) == ModelList(("a", "b"))


def test_several_models_are_named(serve_responses: ServeResponses) -> None:
    url = serve_responses(ScriptedResponses(v1__models=served_models("a", "b"), v1__completions=[ONE_TOKEN]))
    with pytest.raises(UsageError, match=r"serves 2 models\. They are: a, b\. Choose one with --model"):
        find_served_model(url, {})
    assert find_served_model(url, {}, model="b").model == "b"


@pytest.mark.parametrize("refusal", [(404, "no such model"), (400, '{"detail": "no such model"}'), (422, "")])
def test_a_model_that_is_neither_listed_nor_taken_is_told_what_is(
    serve_responses: ServeResponses, refusal: tuple[int, str]
) -> None:
    url = serve_responses(ScriptedResponses(v1__models=served_models("a", "b"), v1__completions=[refusal]))
    with pytest.raises(
        EndpointError, match=r"does not serve 'c'\. It serves: a, b\. /v1/completions answered"
    ) as caught:
        find_served_model(url, {}, model="c")
    assert ("no such model" in str(caught.value)) == bool(refusal[1])


PAGE = (200, json.dumps({"data": [{"id": "a"}], "has_more": True, "last_id": "a"}))


@pytest.mark.parametrize("listed", [(200, '{"data": []}'), served_models("a", "b")[0], PAGE])
@pytest.mark.parametrize("answer", [ONE_TOKEN, (429, "later"), (500, "not yet")])
def test_a_model_that_is_not_listed_is_asked_for_with_a_warning(
    serve_responses: ServeResponses, caplog: pytest.LogCaptureFixture, listed: tuple[int, str], answer: tuple[int, str]
) -> None:
    url = serve_responses(ScriptedResponses(v1__models=[listed], v1__completions=[answer]))
    for _ in range(2):
        assert find_served_model(url, {}, model="c") == ServedModel("c", "completions", is_simulated=False)
    assert [record.message.startswith(f"{url} does not list 'c'") for record in caplog.records] == [True]


@pytest.mark.parametrize("wildcard", ["*", "openai/*", "openai/gpt-?"])
def test_a_wildcard_lists_what_it_matches_and_names_none(
    serve_responses: ServeResponses, caplog: pytest.LogCaptureFixture, wildcard: str
) -> None:
    url = serve_responses(ScriptedResponses(v1__models=served_models(wildcard), v1__completions=[ONE_TOKEN]))
    assert find_served_model(url, {}, model="openai/gpt-5").model == "openai/gpt-5"
    assert not caplog.records
    if "*" in wildcard:
        with pytest.raises(UsageError, match=r"They are: .*\*\. Choose one with --model"):
            find_served_model(url, {})


def test_a_name_with_brackets_is_a_name(serve_responses: ServeResponses) -> None:
    assert ModelList(("a[1]",)).includes("a[1]")
    assert not ModelList(("a[1]",)).includes("a1")


@pytest.mark.parametrize("answer", [(404, ""), (200, "<html>"), (200, "[]"), (200, '{"data": 3}'), (200, "3")])
def test_a_server_that_lists_no_models_needs_one_named(
    serve_responses: ServeResponses, answer: tuple[int, str]
) -> None:
    url = serve_responses(ScriptedResponses(v1__models=[answer], v1__chat__completions=[ONE_TOKEN]))
    with pytest.raises(UsageError, match="Name the model with --model"):
        find_served_model(url, {})
    assert find_served_model(url, {}, model="m") == ServedModel("m", "chat", is_simulated=False)


@pytest.mark.parametrize(("status", "message"), [(401, "refuses"), (403, "refuses"), (503, "Nothing that serves")])
def test_a_server_that_refuses_is_told_apart_from_one_that_is_not_there(
    serve_responses: ServeResponses, status: int, message: str
) -> None:
    url = serve_responses(ScriptedResponses(v1__models=[(status, "")]))
    with pytest.raises(EndpointError, match=message):
        find_served_model(url, {})


def test_a_server_that_is_not_there_is_left_to_the_load_when_the_model_is_known() -> None:
    with pytest.raises(EndpointError, match="Nothing that serves a model answers"):
        find_served_model("http://127.0.0.1:9", {})
    assert find_served_model("http://127.0.0.1:9", {}, model="m").model == "m"
    with pytest.raises(EndpointError, match="Nothing that serves a model answers"):
        find_served_model("http://127.0.0.1:9", {}, model="m", must_answer=True)
