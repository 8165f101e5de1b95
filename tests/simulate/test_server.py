from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from typing import Any

import httpx
import pytest


def events(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    blocks = response.text.split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]


def complete(server, **body):
    return server.client.post("/v1/completions", json={"model": "tiny", "prompt": [1, 2, 3], "max_tokens": 5, **body})


def chat(server, **body):
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello there"}]
    return server.client.post(
        "/v1/chat/completions", json={"model": "tiny", "messages": messages, "max_tokens": 5, **body}
    )


def test_a_completion_streams_one_event_per_token_and_ends_with_its_reason(server):
    chunks = events(complete(server, stream=True))
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 4 + ["length"]
    text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
    assert len(text.split()) == 5
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all("usage" not in chunk for chunk in chunks)


def test_usage_comes_in_a_chunk_of_its_own_when_asked_for(server):
    *tokens, last = events(complete(server, stream=True, stream_options={"include_usage": True}))
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    assert [chunk["usage"] for chunk in tokens] == [None] * 5


def test_a_chat_stream_starts_with_a_chunk_that_has_only_the_role(server):
    first, *tokens = events(chat(server, stream=True))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len("".join(chunk["choices"][0]["delta"]["content"] for chunk in tokens).split()) == 5
    assert tokens[-1]["choices"][0]["finish_reason"] == "length"
    assert {chunk["object"] for chunk in [first, *tokens]} == {"chat.completion.chunk"}


def test_complete_responses_have_text_and_usage(server):
    completion = complete(server).json()
    assert len(completion["choices"][0]["text"].split()) == 5
    response = chat(server, max_tokens=None, max_completion_tokens=7).json()
    assert len(response["choices"][0]["message"]["content"].split()) == 7
    assert response["usage"] == {"prompt_tokens": 4, "completion_tokens": 7, "total_tokens": 11}
    assert response["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [("four words of text", 4), (["four words of text"], 4), ([5, 6], 2), ([[5, 6]], 2), (list(range(3000)), 3000)],
)
def test_every_form_of_prompt_has_its_length(server, prompt, tokens):
    assert complete(server, prompt=prompt).json()["usage"]["prompt_tokens"] == tokens


def test_every_response_says_that_it_is_simulated(server):
    responses = [
        server.client.get("/health"),
        server.client.get("/metrics"),
        server.client.get("/nothing"),
        complete(server),
        complete(server, stream=True),
        complete(server, model="other"),
    ]
    assert [response.headers["x-autotune-simulated"] for response in responses] == ["1"] * len(responses)
    assert complete(server).json()["system_fingerprint"] == "simulated"
    assert {chunk["system_fingerprint"] for chunk in events(chat(server, stream=True))} == {"simulated"}


def test_all_served_names_are_listed_and_answered_under(server):
    cards = server.client.get("/v1/models").json()["data"]
    assert [card["id"] for card in cards] == ["tiny", "alias"]
    assert cards[0]["max_model_len"] == 4096
    assert complete(server, model="alias").json()["model"] == "alias"
    assert complete(server, model=None).json()["model"] == "tiny"


def test_another_model_is_not_found_and_the_answer_names_what_is_served(server):
    response = complete(server, model="llama")
    error = response.json()["error"]
    assert response.status_code == 404
    assert error["type"] == "NotFoundError"
    assert "llama" in error["message"]
    assert "tiny, alias" in error["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": list(range(4095)), "max_tokens": 2}, "max_tokens"),
        ({"prompt": list(range(5000))}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, True]}, "prompt"),
        ({"prompt": [1, -1]}, "prompt"),
        ({"prompt": [10**7]}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"min_tokens": 9}, "min_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": True}, "stream_options"),
        ({"n": 2}, "n"),
    ],
)
def test_what_cannot_be_served_is_a_bad_request_that_names_the_parameter(server, body, param):
    response = complete(server, **body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("BadRequestError", param, 400)


@pytest.mark.parametrize("body", [b"{", b"", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_not_a_json_object_is_a_bad_request(server, body):
    assert server.client.post("/v1/completions", content=body).status_code == 400


def test_unknown_paths_and_wrong_methods_are_told_apart(server):
    assert server.client.get("/v1/embeddings").status_code == 404
    assert server.client.get("/v1/completions").status_code == 405


def test_the_prefix_cache_is_counted_and_can_be_reset(server):
    def hits() -> float:
        before = server.metric("prefix_cache_hits_total"), server.metric("prefix_cache_queries_total")
        complete(server, prompt=list(range(70_000, 70_100)))
        assert server.metric("prefix_cache_queries_total") - before[1] == 100
        hit_count: float = server.metric("prefix_cache_hits_total") - before[0]
        return hit_count

    assert (hits(), hits()) == (0, 96)
    assert server.client.post("/reset_prefix_cache").status_code == 200
    assert hits() == 0


def test_a_client_that_disconnects_frees_its_blocks(server):
    aborted = server.metric("requests_aborted_total")
    with server.client.stream(
        "POST", "/v1/completions", json={"prompt": [1] * 100, "max_tokens": 3000, "stream": True}
    ) as response:
        lines = response.iter_lines()
        next(lines)
        assert server.metric("num_requests_running") == 1
        assert server.metric("kv_cache_usage_perc") > 0
    server.until_metric("num_requests_running", 0)
    assert server.metric("requests_aborted_total") == aborted + 1
    assert server.metric("kv_cache_usage_perc") == 0


def test_one_connection_serves_many_requests_also_pipelined(server):
    port = server.client.base_url.port
    request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    body = b'{"prompt": "one two", "max_tokens": 2}'
    completion = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request * 3 + completion + b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
        received = b""
        while part := connection.recv(65536):
            received += part
    statuses = re.findall(rb"HTTP/1.1 (\d+)", received)
    assert statuses == [b"200"] * 5
    assert received.index(b'"completion_tokens":2') < received.rindex(b"HTTP/1.1 200")


def test_an_http_1_0_stream_ends_with_its_connection(server):
    body = b'{"prompt": "one", "max_tokens": 2, "stream": true}'
    with socket.create_connection(("127.0.0.1", server.client.base_url.port), timeout=60) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        received = b""
        while part := connection.recv(65536):
            received += part
    assert b"transfer-encoding" not in received
    assert received.endswith(b"data: [DONE]\n\n")


def test_bytes_that_are_not_http_are_rejected(server):
    with socket.create_connection(("127.0.0.1", server.client.base_url.port), timeout=60) as connection:
        connection.sendall(b"hello\r\n\r\n")
        assert connection.recv(1024).startswith(b"HTTP/1.1 400")


def test_concurrent_streams_share_iterations(server):
    before = server.metric("iterations_total")
    bodies = [b'{"prompt": "a b", "max_tokens": 200, "stream": true}'] * 8
    port = server.client.base_url.port
    connections = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in bodies]
    for connection, body in zip(connections, bodies, strict=True):
        head = b"POST /v1/completions HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)
    for connection in connections:
        with connection:
            received = b""
            while part := connection.recv(65536):
                received += part
            assert received.count(b"data: ") == 201
    assert server.metric("iterations_total") - before < 8 * 200


def test_the_metrics_are_well_formed(server):
    lines = server.client.get("/metrics").text.splitlines()
    samples = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r'autotune_sim_\w+(\{le="[^"]+"\})? [-+.e\d]+', line) for line in samples)
    typed = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert {re.sub(r"(_bucket|_sum|_count)?(\{.*\})? .*", "", line) for line in samples} == typed


def test_health_and_requests_are_503_until_the_model_is_loaded(serve):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with serve("--port", str(port), "--fault-start-delay", "300", wait=False) as server:
        server.wait_for(re.compile(r"(Maximum concurrency)"))
        server.client.base_url = f"http://127.0.0.1:{port}"
        assert server.client.get("/health").status_code == 503
        assert complete(server).status_code == 503


def test_it_says_what_it_is_and_stops_on_term(serve):
    with serve("--model", "qwen3-0.6b") as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        log = server.log.read_text()
    assert "simulated" in log
    assert re.search(r"KV cache size: \d+ tokens", log)


def test_it_stops_on_term_with_streams_open(serve):
    with serve("--fixed-step-ms", "2") as server:
        body = {"prompt": [1], "max_tokens": 100_000, "stream": True}
        with server.client.stream("POST", "/v1/completions", json=body) as response:
            lines = response.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(httpx.HTTPError):
                list(lines)
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.processes
def test_it_starts_without_the_schema_of_experiments():
    heavy = ["pydantic", "numpy", "autotuner.experiment", "autotuner.core"]
    code = f"import sys, autotuner.simulate.server; print(*(set({heavy}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
