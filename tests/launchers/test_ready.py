"""When a server is ready, and what it says when it is not."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from autotuner.core import FailureKind
from autotuner.errors import EngineError, MachineError
from autotuner.experiment import Deployment
from autotuner.launchers import ServerExitedError, ready
from autotuner.launchers.external import ExternalServer
from tests.servers import ScriptedResponses

MODELS = json.dumps({"data": [{"id": "tiny", "owned_by": "vllm"}]})
TOKEN = json.dumps({"choices": [{"text": "a"}]})
Serve = Callable[[ScriptedResponses], str]


def answers(**changed: list[tuple[int, str]]) -> ScriptedResponses:
    healthy = {"health": [(200, "")], "v1__models": [(200, MODELS)], "v1__completions": [(200, TOKEN)]}
    return ScriptedResponses(**(healthy | changed))


def wait(url: str, *, timeout: float = 5.0, model: str = "tiny", endpoint: ready.Endpoint = "completions") -> None:
    ready.wait_until_ready(ExternalServer(url), ready_path="/health", model=model, timeout=timeout, endpoint=endpoint)


def test_a_server_is_ready_after_health_its_models_and_a_token(serve_responses: Serve) -> None:
    responses = answers(health=[(503, ""), (503, ""), (200, "")], v1__completions=[(503, "loading"), (200, TOKEN)])
    wait(serve_responses(responses))
    assert responses.requested_paths == ["/health"] * 3 + ["/v1/models"] + ["/v1/completions"] * 2


def test_a_chat_server_is_asked_for_a_chat(serve_responses: Serve) -> None:
    responses = answers(**{"v1__chat__completions": [(200, TOKEN)]})
    wait(serve_responses(responses), endpoint="chat")
    assert responses.requested_paths[-1] == "/v1/chat/completions"


def test_a_url_may_end_in_v1(serve_responses: Serve) -> None:
    assert ready.identify(serve_responses(answers()) + "/v1/").models == ("tiny",)


def test_a_server_that_stays_silent_times_out_with_its_last_answer(serve_responses: Serve) -> None:
    with pytest.raises(TimeoutError, match="/health answered 503"):
        wait(serve_responses(answers(health=[(503, "")])), timeout=0.2)


def test_a_server_that_nobody_started_times_out() -> None:
    with pytest.raises(TimeoutError, match="gave no answer"):
        wait("http://127.0.0.1:9", timeout=0.2)


def test_a_server_of_another_model_is_named_as_such(serve_responses: Serve) -> None:
    with pytest.raises(EngineError) as caught:
        wait(serve_responses(answers()), model="huge")
    assert caught.value.failure.kind is FailureKind.WRONG_MODEL
    assert "serves tiny, not huge" in caught.value.failure.message


def test_a_server_that_refuses_a_plain_request_is_unhealthy(serve_responses: Serve) -> None:
    with pytest.raises(EngineError) as caught:
        wait(serve_responses(answers(v1__completions=[(400, "no such parameter")])))
    assert caught.value.failure.kind is FailureKind.UNHEALTHY
    assert "no such parameter" in caught.value.failure.message


def test_a_server_that_fails_every_request_is_unhealthy(
    serve_responses: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "REFUSAL_TIMEOUT_SECONDS", 0.1)
    with pytest.raises(EngineError) as caught:
        wait(serve_responses(answers(v1__completions=[(500, "engine is dead")])))
    assert caught.value.failure.kind is FailureKind.UNHEALTHY


def test_a_first_request_that_is_turned_away_is_asked_again(serve_responses: Serve) -> None:
    wait(serve_responses(answers(v1__completions=[(429, "later"), (500, "not yet"), (200, TOKEN)])))


@pytest.mark.parametrize("body", ["", "[]", '{"data": 1}', '{"data": [{}]}'])
def test_a_list_of_models_that_is_none_is_not_ready(serve_responses: Serve, body: str) -> None:
    with pytest.raises(TimeoutError, match="did not answer with a list"):
        wait(serve_responses(answers(v1__models=[(200, body)])), timeout=0.2)


def test_a_server_that_ends_meanwhile_is_seen_before_the_time_is_up() -> None:
    class Dead:
        url = "http://127.0.0.1:9"

        def exit_status(self) -> int | None:
            return 3

    with pytest.raises(ServerExitedError) as caught:
        ready.wait_until_ready(Dead(), ready_path="/health", model="tiny", timeout=60)
    assert caught.value.exit_status == 3


@pytest.mark.parametrize(
    ("response", "expected"), [((200, TOKEN), "answer"), ((429, ""), "answer"), ((500, ""), "fault")]
)
def test_a_server_that_still_answers_is_told_from_one_that_fails(
    serve_responses: Serve, response: tuple[int, str], expected: str
) -> None:
    url = serve_responses(answers(v1__completions=[response]))
    assert ready.probe_server(url, "tiny", "completions", 2.0) == expected


def test_a_server_that_is_gone_is_silent() -> None:
    assert ready.probe_server("http://127.0.0.1:9", "tiny", "completions", 1.0) == "silence"


def test_a_key_comes_from_the_environment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = Deployment(mode="external", headers={"X-Team": "a"}, api_key_env="SOME_KEY")
    monkeypatch.setenv("SOME_KEY", "s3cret")
    assert ready.request_headers(deployment) == {"X-Team": "a", "Authorization": "Bearer s3cret"}
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(MachineError, match="SOME_KEY is not set"):
        ready.request_headers(deployment)
