"""Which model a running server serves."""

from __future__ import annotations

import pytest

from autotuner.endpoints.client import Client
from autotuner.endpoints.models import ModelList, ServedModel, find_served_model, list_models
from autotuner.errors import EndpointError, UsageError
from tests.endpoints.conftest import TOKEN, ScriptedResponses, Serve, models


def test_the_only_model_is_found(serve: Serve) -> None:
    url = serve(ScriptedResponses(v1__models=models("a"), v1__completions=[TOKEN]))
    assert find_served_model(url, {}) == ServedModel("a", "completions", is_simulated=False)


def test_the_simulated_engine_is_known_for_what_it_is(serve: Serve) -> None:
    url = serve(ScriptedResponses(v1__models=models("a", owner="autotune-sim"), v1__completions=[TOKEN]))
    assert find_served_model(url, {}).is_simulated


def test_a_url_may_end_in_v1(serve: Serve) -> None:
    with Client(serve(ScriptedResponses(v1__models=models("a", "b"))) + "/v1/") as client:
        assert list_models(client) == ModelList(("a", "b"))


def test_several_models_are_named(serve: Serve) -> None:
    url = serve(ScriptedResponses(v1__models=models("a", "b"), v1__completions=[TOKEN]))
    with pytest.raises(UsageError, match=r"serves 2 models\. They are: a, b\. Choose one with --model"):
        find_served_model(url, {})
    assert find_served_model(url, {}, model="b").model == "b"


def test_a_model_that_is_not_served_is_told_what_is(serve: Serve) -> None:
    with pytest.raises(EndpointError, match=r"does not serve 'c'\. It serves: a, b"):
        find_served_model(serve(ScriptedResponses(v1__models=models("a", "b"))), {}, model="c")


@pytest.mark.parametrize("answer", [(404, ""), (200, "<html>"), (200, "[]"), (200, '{"data": 3}'), (200, "3")])
def test_a_server_that_lists_no_models_needs_one_named(serve: Serve, answer: tuple[int, str]) -> None:
    url = serve(ScriptedResponses(v1__models=[answer], v1__chat__completions=[TOKEN]))
    with pytest.raises(UsageError, match="Name the model with --model"):
        find_served_model(url, {})
    assert find_served_model(url, {}, model="m") == ServedModel("m", "chat", is_simulated=False)


@pytest.mark.parametrize(("status", "message"), [(401, "refuses"), (403, "refuses"), (503, "Nothing that serves")])
def test_a_server_that_refuses_is_told_apart_from_one_that_is_not_there(
    serve: Serve, status: int, message: str
) -> None:
    url = serve(ScriptedResponses(v1__models=[(status, "")]))
    with pytest.raises(EndpointError, match=message):
        find_served_model(url, {})


def test_a_server_that_is_not_there_is_left_to_the_load_when_the_model_is_known() -> None:
    with pytest.raises(EndpointError, match="Nothing that serves a model answers"):
        find_served_model("http://127.0.0.1:9", {})
    assert find_served_model("http://127.0.0.1:9", {}, model="m").model == "m"
