"""The profilers of engines, scripted as they answer."""

import json

import pytest

from autotuner.endpoints.profiler import ServerProfiler
from autotuner.errors import EndpointError
from tests.servers import ScriptedResponses, ServeResponses

DONE = json.dumps({"status": "ok", "message": "Profiling started"})


def scripted(start_path: str, text: str, stop_status: int = 200) -> ScriptedResponses:
    stop_path = start_path.replace("start", "stop")
    return ScriptedResponses(**{start_path: [(200, text)], stop_path: [(stop_status, text)]})


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("start_profile", ""),  # vLLM
        ("start_profile", "Start profiling.\n"),  # SGLang
        ("engine__control__start_profile", DONE),  # Dynamo
        ("engine__start_profile", DONE),  # earlier Dynamo
    ],
)
def test_each_engine_is_started_and_stopped_by_its_own_route(
    serve_responses: ServeResponses, path: str, text: str
) -> None:
    responses = scripted(path, text)
    profiler = ServerProfiler(serve_responses(responses))
    stop_path = profiler.start("/traces")
    assert stop_path == "/" + path.replace("__", "/").replace("start", "stop")
    profiler.stop(stop_path, 30)
    assert responses.requested_paths[-1] == stop_path


def test_the_routes_are_beside_the_api(serve_responses: ServeResponses) -> None:
    url = serve_responses(scripted("start_profile", ""))
    assert ServerProfiler(f"{url}/v1").start() == "/stop_profile"


@pytest.mark.parametrize(("status", "text"), [(404, "Not Found"), (405, ""), (200, "<!doctype html>")])
def test_a_server_that_was_not_started_for_it_says_what_to_start_it_with(
    serve_responses: ServeResponses, status: int, text: str
) -> None:
    url = serve_responses(ScriptedResponses(start_profile=[(status, text)]))
    with pytest.raises(EndpointError, match="not started for it") as raised:
        ServerProfiler(url).start()
    for words in ("--profiler-config", "VLLM_TORCH_PROFILER_DIR", "DYN_SYSTEM_PORT"):
        assert words in str(raised.value)


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [
        (401, "", "--api-key-env"),
        (403, "", "--api-key-env"),
        (500, "Profiling is already in progress.", "already in progress"),
        (200, json.dumps({"status": "error", "message": "no profiler directory"}), "no profiler directory"),
    ],
)
def test_a_refusal_is_an_error_with_the_servers_words(
    serve_responses: ServeResponses, status: int, text: str, words: str
) -> None:
    url = serve_responses(ScriptedResponses(start_profile=[(status, text)]))
    with pytest.raises(EndpointError, match=words):
        ServerProfiler(url).start()


def test_a_trace_that_cannot_be_stopped_is_an_error(serve_responses: ServeResponses) -> None:
    profiler = ServerProfiler(serve_responses(scripted("start_profile", "", stop_status=500)))
    with pytest.raises(EndpointError, match="stop_profile answered 500"):
        profiler.stop(profiler.start(), 30)


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(EndpointError, match=r"127\.0\.0\.1:9 did not answer"):
        ServerProfiler("http://127.0.0.1:9").start()
