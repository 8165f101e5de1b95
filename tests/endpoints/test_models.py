"""Which model a running server serves."""

from __future__ import annotations

import json
import time

import pytest

from autotuner.endpoints import models
from autotuner.endpoints.address import Address
from autotuner.endpoints.client import Client
from autotuner.endpoints.models import ModelList, ServedModel, find_served_model, list_models
from autotuner.errors import EndpointError, UsageError
from tests.servers import ONE_TOKEN, ScriptedResponses, ServeResponses, served_models


def test_the_only_model_is_found(serve_responses: ServeResponses) -> None:
    url = serve_responses(ScriptedResponses(v1__models=served_models("a"), v1__completions=[ONE_TOKEN]))
    assert find_served_model(url, {}) == ServedModel("a", "completions", is_simulated=False, url=url)


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
@pytest.mark.parametrize("answer", [ONE_TOKEN, (429, "later"), (503, "not yet")])
def test_a_model_that_is_not_listed_is_asked_for_with_a_warning(
    serve_responses: ServeResponses, caplog: pytest.LogCaptureFixture, listed: tuple[int, str], answer: tuple[int, str]
) -> None:
    url = serve_responses(ScriptedResponses(v1__models=[listed], v1__completions=[answer]))
    for _ in range(2):
        assert find_served_model(url, {}, model="c") == ServedModel("c", "completions", is_simulated=False, url=url)
    assert [record.message.startswith(f"{url} does not list 'c'") for record in caplog.records] == [True]


@pytest.mark.parametrize("wildcard", ["*", "openai/*", "openai/gpt-?"])
def test_a_wildcard_lists_what_it_matches_and_names_none(
    serve_responses: ServeResponses, caplog: pytest.LogCaptureFixture, wildcard: str
) -> None:
    url = serve_responses(ScriptedResponses(v1__models=served_models(wildcard), v1__completions=[ONE_TOKEN]))
    assert find_served_model(url, {}, model="openai/gpt-5").model == "openai/gpt-5"
    assert f"lists 'openai/gpt-5' only by a pattern, and may accept any name: {wildcard}." in caplog.text
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
    served = find_served_model(url, {}, model="m")
    assert (served.model, served.endpoint, served.url) == ("m", "chat", url)


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


@pytest.mark.parametrize("listed", [(200, '[{"id": "a"}]'), (200, '\ufeff{"data": [{"id": "a"}]}')])
def test_a_list_is_read_in_the_forms_that_servers_write(
    serve_responses: ServeResponses, listed: tuple[int, str]
) -> None:
    url = serve_responses(ScriptedResponses(v1__models=[listed], v1__completions=[ONE_TOKEN]))
    assert find_served_model(url, {}).model == "a"


@pytest.mark.parametrize("nameless", [{"id": None}, {"id": ""}])
def test_a_model_without_a_name_is_none(serve_responses: ServeResponses, nameless: dict[str, object]) -> None:
    listed, alone = ((200, json.dumps({"data": cards})) for cards in ([nameless, {"id": "a"}], [nameless]))
    url = serve_responses(ScriptedResponses(v1__models=[listed], v1__completions=[ONE_TOKEN]))
    assert find_served_model(url, {}).model == "a"
    url = serve_responses(ScriptedResponses(v1__models=[alone], v1__completions=[ONE_TOKEN]))
    with pytest.raises(UsageError, match="lists no model"):
        find_served_model(url, {})


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_placeholder_in_the_list_is_said_to_be_none_of_its_models(
    serve_responses: ServeResponses, status: int
) -> None:
    refusal = (status, "The model `unknown` does not exist. Valid aliases: tiny")
    responses = {"v1__completions": [refusal], "v1__chat__completions": [refusal]}
    url = serve_responses(ScriptedResponses(v1__models=served_models("unknown"), **responses))
    with pytest.raises(EndpointError, match=r"Valid aliases: tiny\. It lists 'unknown' .* name the model with --model"):
        find_served_model(url, {})


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_without_a_list_is_said_to_list_no_pattern(
    serve_responses: ServeResponses, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    url = serve_responses(ScriptedResponses(v1__models=[(status, "")], v1__completions=[ONE_TOKEN]))
    assert find_served_model(url, {}, model="m").model == "m"
    assert not caplog.records


def test_a_tag_of_latest_is_understood(serve_responses: ServeResponses, caplog: pytest.LogCaptureFixture) -> None:
    url = serve_responses(ScriptedResponses(v1__models=served_models("a:latest"), v1__completions=[ONE_TOKEN]))
    assert find_served_model(url, {}, model="a").model == "a"
    assert not caplog.records


def test_a_list_that_fails_leaves_the_model_to_be_named(serve_responses: ServeResponses) -> None:
    url = serve_responses(ScriptedResponses(v1__models=[(500, "oops")], v1__completions=[ONE_TOKEN]))
    with pytest.raises(EndpointError, match=r"fails to list its models.*500: oops.*--model;.*--api-key-env"):
        find_served_model(url, {})
    assert find_served_model(url, {}, model="m", must_answer=True).model == "m"


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_missing_is_hinted_at(serve_responses: ServeResponses, status: int) -> None:
    refused = [(status, "no key")]
    responses = {"v1__models": refused, "v1__completions": refused, "v1__chat__completions": refused}
    url = serve_responses(ScriptedResponses(**responses))
    with pytest.raises(EndpointError, match=r"refuses to list its models.*--api-key-env NAME"):
        find_served_model(url, {})
    with pytest.raises(EndpointError, match=r"gives no token.*no key.*--api-key-env NAME"):
        find_served_model(url, {}, model="m")


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("header", ["Authorization", "x-api-key"])
def test_a_key_that_is_refused_is_to_be_checked(serve_responses: ServeResponses, status: int, header: str) -> None:
    refused = [(status, "bad key")]
    responses = {"v1__models": refused, "v1__completions": refused, "v1__chat__completions": refused}
    url = serve_responses(ScriptedResponses(**responses))
    for model in (None, "m"):
        with pytest.raises(EndpointError, match=r"bad key.*Check the API key"):
            find_served_model(url, {header: "Bearer s3cret"}, model=model)


@pytest.mark.parametrize(
    ("status", "words"), [(500, "some servers fail so with a wrong API key"), (400, "Check the API key")]
)
def test_a_list_that_fails_for_a_wrong_key_hints_at_it(
    serve_responses: ServeResponses, status: int, words: str
) -> None:
    url = serve_responses(ScriptedResponses(v1__models=[(status, "No connected db.")]))
    with pytest.raises((EndpointError, UsageError), match=words):
        find_served_model(url, {"Authorization": "Bearer s3cret"})


def test_a_server_that_gives_no_token_on_any_route_is_refused_with_all_its_answers(
    serve_responses: ServeResponses,
) -> None:
    responses = ScriptedResponses(
        v1__models=served_models("a"), v1__completions=[(500, "no ids")], v1__chat__completions=[(400, "no chat")]
    )
    with pytest.raises(EndpointError, match=r"gives no token.*500: no ids.*400: no chat.*--omit"):
        find_served_model(serve_responses(responses), {})


# where the API is


@pytest.mark.parametrize(
    ("path", "base"),
    [
        ("/v3", "v3"),
        ("/api/paas/v4/", "api__paas__v4"),
        ("/v1beta/openai", "v1beta__openai"),
        ("/llm", "llm"),
        ("/llm", "llm__v1"),
        ("/llm/v1/chat/completions", "llm__v1"),
        ("", "v1"),
    ],
)
def test_the_api_is_found_at_the_path_as_given_or_with_v1_after_it(
    serve_responses: ServeResponses, path: str, base: str
) -> None:
    pages = {f"{base}__models": served_models("a"), f"{base}__chat__completions": [ONE_TOKEN]}
    url = serve_responses(ScriptedResponses(**pages))
    served = find_served_model(url + path, {})
    assert (served.model, served.endpoint) == ("a", "chat")
    assert Address.from_url(served.url).api_path == "/" + base.replace("__", "/")


@pytest.mark.parametrize("base", ["", "llm__v1__", "llm__"])
@pytest.mark.parametrize("route", ["completions", "chat__completions"])
def test_an_api_that_lists_no_models_is_found_by_its_token(
    serve_responses: ServeResponses, base: str, route: str
) -> None:
    url = serve_responses(ScriptedResponses(**{f"{base}{route}": [ONE_TOKEN]}))
    served = find_served_model(url + ("/llm" if base else ""), {}, model="m")
    assert served.endpoint == ("chat" if "chat" in route else "completions")
    assert Address.from_url(served.url).api_path == f"/{base}".replace("__", "/").rstrip("/")


def test_a_query_is_sent_with_every_request(serve_responses: ServeResponses) -> None:
    pages = {"v1__models?api-version=2": served_models("a"), "v1__completions?api-version=2": [ONE_TOKEN]}
    served = find_served_model(serve_responses(ScriptedResponses(**pages)) + "?api-version=2", {})
    assert (served.model, served.endpoint) == ("a", "completions")
    assert served.url.endswith("?api-version=2")


def test_a_pasted_endpoint_contradicts_another_one_by_name() -> None:
    with pytest.raises(UsageError, match="The address is of the chat endpoint"):
        find_served_model("http://127.0.0.1:9/v1/chat/completions", {}, endpoint="completions")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_on_the_same_host_is_followed_once_and_then_left_out(
    serve_responses: ServeResponses, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    responses = ScriptedResponses(llm__v1__models=served_models("a"), llm__v1__completions=[ONE_TOKEN])
    url = serve_responses(responses)
    responses.by_path["/v1/models"] = [(status, f"{url}/llm/v1/models")]
    served = find_served_model(url, {})
    assert (served.model, served.url) == ("a", f"{url}/llm/v1")
    assert caplog.messages == [f"{url} redirects to {url}/llm/v1, which is used directly."]


def test_a_redirect_of_the_route_alone_is_followed_too(serve_responses: ServeResponses) -> None:
    responses = ScriptedResponses(v2__completions=[ONE_TOKEN], v1__completions=[(308, "/v2/completions")])
    url = serve_responses(responses)
    assert find_served_model(url, {}, model="m").url == f"{url}/v2"


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("https://elsewhere.example/v1/models", r"redirects to https://elsewhere\.example/v1/models\. .* same host"),
        ("/login", r"redirects /models to http://127\.0\.0\.1:\d+/login\. .*--api-key-env"),
        ("/v1/models", "which is the same page"),
    ],
)
def test_a_redirect_that_is_not_followed_names_its_target(
    serve_responses: ServeResponses, location: str, message: str
) -> None:
    url = serve_responses(ScriptedResponses(v1__models=[(307, location)]))
    with pytest.raises(EndpointError, match=message):
        find_served_model(url, {})


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_that_is_not_used_is_named_without_its_address(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.setenv(name, "http://user:s3cret@127.0.0.1:9")
    with pytest.raises(EndpointError, match="Nothing that serves"):
        find_served_model("http://a-host.invalid", {})
    assert caplog.messages[0].startswith(f"{name} is set and not used")
    assert "s3cret" not in caplog.text


def test_a_proxy_that_does_not_apply_is_not_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", ".invalid")
    for url in ("http://127.0.0.1:9", "http://a-host.invalid"):
        with pytest.raises(EndpointError):
            find_served_model(url, {})
    assert not caplog.records


def test_a_redirect_to_a_slash_is_followed_for_the_list(serve_responses: ServeResponses) -> None:
    responses = ScriptedResponses(v1__models__=served_models("a"), v1__completions=[ONE_TOKEN])
    url = serve_responses(responses)
    responses.by_path["/v1/models"] = [(307, f"{url}/v1/models/")]
    served = find_served_model(url, {})
    assert (served.model, served.url) == ("a", url)


def test_a_redirect_that_never_ends_is_an_error(serve_responses: ServeResponses) -> None:
    pages = {f"{base}__models": [(307, f"/{base}x/models")] for base in ("v1", "v1x", "v1xx", "v1xxx", "v1xxxx")}
    with pytest.raises(EndpointError, match="redirects more than 5 times"):
        find_served_model(serve_responses(ScriptedResponses(**pages)), {})


def test_a_server_that_is_silent_about_its_models_is_asked_for_a_token(
    serve_responses: ServeResponses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "TIMEOUT_SECONDS", 0.1)
    responses = ScriptedResponses(v1__models=[(408, "")], v1__chat__completions=[ONE_TOKEN])
    respond = responses.respond

    def slow(path: str, headers: dict[str, str]) -> tuple[int, str]:
        if path == "/v1/models":
            time.sleep(0.3)
        return respond(path, headers)

    responses.respond = slow  # type: ignore[method-assign]
    assert find_served_model(serve_responses(responses), {}, model="m", must_answer=True).endpoint == "chat"
