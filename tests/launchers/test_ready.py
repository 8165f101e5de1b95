"""When a server is ready, and what it says when it is not."""

from __future__ import annotations

import json

import pytest

from autotuner.core import FailureKind
from autotuner.errors import EngineError
from autotuner.launchers import ServerExitedError, ready
from autotuner.launchers.external import ExternalServer
from autotuner.workload.prompts import EndpointKind
from tests.servers import ScriptedResponses, ServeResponses

MODELS = json.dumps({"data": [{"id": "tiny", "owned_by": "vllm"}]})
TOKEN = json.dumps({"choices": [{"text": "a"}]})


def answers(**changed: list[tuple[int, str]]) -> ScriptedResponses:
    healthy = {"health": [(200, "")], "v1__models": [(200, MODELS)], "v1__completions": [(200, TOKEN)]}
    return ScriptedResponses(**(healthy | changed))


def wait(url: str, *, timeout: float = 5.0, model: str = "tiny", endpoint: EndpointKind = "completions") -> None:
    ready.wait_until_ready(ExternalServer(url), ready_path="/health", model=model, timeout=timeout, endpoint=endpoint)


def test_a_server_is_ready_after_health_its_models_and_a_token(serve_responses: ServeResponses) -> None:
    responses = answers(health=[(503, ""), (503, ""), (200, "")], v1__completions=[(503, "loading"), (200, TOKEN)])
    wait(serve_responses(responses))
    assert responses.requested_paths == ["/health"] * 3 + ["/v1/models"] + ["/v1/completions"] * 2


def test_a_chat_server_is_asked_for_a_chat(serve_responses: ServeResponses) -> None:
    responses = answers(**{"v1__chat__completions": [(200, TOKEN)]})
    wait(serve_responses(responses), endpoint="chat")
    assert responses.requested_paths[-1] == "/v1/chat/completions"


def test_a_server_that_stays_silent_times_out_with_its_last_answer(serve_responses: ServeResponses) -> None:
    with pytest.raises(TimeoutError, match="/health answered 503"):
        wait(serve_responses(answers(health=[(503, "")])), timeout=0.2)


def test_a_server_that_nobody_started_times_out() -> None:
    with pytest.raises(TimeoutError, match="gave no answer"):
        wait("http://127.0.0.1:9", timeout=0.2)


def test_a_server_of_another_model_is_named_as_such(serve_responses: ServeResponses) -> None:
    with pytest.raises(EngineError) as caught:
        wait(serve_responses(answers()), model="huge")
    assert caught.value.failure.kind is FailureKind.WRONG_MODEL
    assert "serves tiny, not huge" in caught.value.failure.message


def test_a_server_that_refuses_a_plain_request_is_unhealthy(serve_responses: ServeResponses) -> None:
    with pytest.raises(EngineError) as caught:
        wait(serve_responses(answers(v1__completions=[(400, "no such parameter")])))
    assert caught.value.failure.kind is FailureKind.UNHEALTHY
    assert "no such parameter" in caught.value.failure.message


def test_a_server_that_fails_every_request_is_unhealthy(
    serve_responses: ServeResponses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "REFUSAL_TIMEOUT_SECONDS", 0.1)
    with pytest.raises(EngineError) as caught:
        wait(serve_responses(answers(v1__completions=[(500, "engine is dead")])))
    assert caught.value.failure.kind is FailureKind.UNHEALTHY


def test_a_first_request_that_is_turned_away_is_asked_again(serve_responses: ServeResponses) -> None:
    wait(serve_responses(answers(v1__completions=[(429, "later"), (500, "not yet"), (200, TOKEN)])))


@pytest.mark.parametrize("body", ["", "[3]", '{"data": 1}', '{"data": [{}]}'])
def test_a_list_of_models_that_is_none_is_not_ready(serve_responses: ServeResponses, body: str) -> None:
    with pytest.raises(TimeoutError, match="did not answer with a list"):
        wait(serve_responses(answers(v1__models=[(200, body)])), timeout=0.2)


def test_a_frontend_whose_workers_are_not_there_yet_is_waited_for(serve_responses: ServeResponses) -> None:
    with pytest.raises(TimeoutError, match="lists no model yet"):
        wait(serve_responses(answers(v1__models=[(200, '{"data": []}')])), timeout=0.2)


def test_a_server_that_ends_meanwhile_is_seen_before_the_time_is_up() -> None:
    class Dead:
        url = "http://127.0.0.1:9"

        def exit_status(self) -> int | None:
            return 3

    with pytest.raises(ServerExitedError) as caught:
        ready.wait_until_ready(Dead(), ready_path="/health", model="tiny", timeout=60)
    assert caught.value.exit_status == 3


@pytest.mark.parametrize("listed", [(404, ""), (200, '{"data": []}'), (200, '{"data": [{"id": "other"}]}')])
def test_a_server_that_runs_already_need_not_list_its_model(
    serve_responses: ServeResponses, listed: tuple[int, str]
) -> None:
    server = ExternalServer(
        serve_responses(answers(v1__models=[listed], v1__completions=[(503, "loading"), (200, TOKEN)]))
    )
    models = ready.wait_until_ready(server, ready_path=None, model="tiny", timeout=5.0)
    assert models.names == (("other",) if "other" in listed[1] else ())


@pytest.mark.parametrize(
    ("listed", "kind"),
    [
        ((200, '{"data": [{"id": "other"}]}'), FailureKind.WRONG_MODEL),
        ((200, '{"data": []}'), FailureKind.UNHEALTHY),
        ((404, ""), FailureKind.UNHEALTHY),
    ],
)
def test_a_refusal_of_a_running_server_is_explained_by_what_it_lists(
    serve_responses: ServeResponses, listed: tuple[int, str], kind: FailureKind
) -> None:
    server = ExternalServer(serve_responses(answers(v1__models=[listed], v1__completions=[(404, "no such model")])))
    with pytest.raises(EngineError) as caught:
        ready.wait_until_ready(server, ready_path=None, model="tiny", timeout=5.0)
    assert caught.value.failure.kind is kind
