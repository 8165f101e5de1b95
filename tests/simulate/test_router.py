"""The router before simulated servers in one process, over real connections on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from autotuner.simulate import router as router_module
from autotuner.simulate.api import Api
from autotuner.simulate.backend import Backend
from autotuner.simulate.http import HttpConnection
from autotuner.simulate.metrics import add_samples
from autotuner.simulate.realtime import RealtimeEngine
from autotuner.simulate.router import Router
from autotuner.simulate.settings import parse_settings
from autotuner.simulate.started_engine import start_engine

FLAGS = ("--model", "qwen3-0.6b", "--fixed-step-ms", "1", "--kv-transfer-gbps", "100")


@asynccontextmanager
async def listening(handler: Callable[..., Any]) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(lambda: HttpConnection(handler), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def engine(*flags: str) -> AsyncIterator[tuple[Backend, RealtimeEngine]]:
    """A simulated server, as a router knows it and from inside."""
    settings = parse_settings([*FLAGS, *flags])
    started = start_engine(settings)
    realtime = RealtimeEngine(started.create_scheduler(), asyncio.get_running_loop())
    api = Api(settings, started, realtime)
    api.ready = True
    async with listening(api.handle) as port:
        yield Backend("127.0.0.1", port), realtime
    realtime.close()


@asynccontextmanager
async def client(router: Router) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        listening(router.handle) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as session,
    ):
        yield session
    for backend in router.backends:
        backend.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test(), 120)

    asyncio.run(limited())


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[httpx.AsyncClient, RealtimeEngine, RealtimeEngine]]:
    """A client of a router, and the prefill and the decode server behind it."""
    async with (
        engine("--disaggregation-mode", "prefill") as (prefill, computing),
        engine("--disaggregation-mode", "decode") as (decode, decoding),
        client(Router(prefill=[prefill], decode=[decode])) as session,
    ):
        yield session, computing, decoding


BODY = {"prompt": list(range(100)), "max_tokens": 5, "min_tokens": 5, "ignore_eos": True}


def test_prompts_are_computed_on_one_server_and_tokens_come_from_the_other():
    async def test() -> None:
        async with pair() as (session, prefill, decode):
            answer = (await session.post("/v1/completions", json=BODY)).json()
            assert answer["usage"] == {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}
            assert "kv_transfer_params" not in answer
            assert (prefill.scheduler.counters.prefill_tokens, prefill.scheduler.counters.generated_tokens) == (100, 1)
            assert (decode.scheduler.counters.prefill_tokens, decode.scheduler.counters.generated_tokens) == (0, 5)

    run(test)


def test_a_stream_comes_through_token_by_token():
    async def test() -> None:
        async with pair() as (session, _, _):
            body = {**BODY, "stream": True, "stream_options": {"include_usage": True}}
            text = (await session.post("/v1/completions", json=body)).text
            blocks = text.split("\n\n")
            assert blocks[-2:] == ["data: [DONE]", ""]
            *tokens, usage = [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]
            assert len(tokens) == 5
            assert usage["usage"]["completion_tokens"] == 5
            chat = {"messages": [{"role": "user", "content": "a b"}], "max_tokens": 2}
            answer = (await session.post("/v1/chat/completions", json=chat)).json()
            assert answer["usage"]["prompt_tokens"] == 2

    run(test)


def test_the_counters_of_all_servers_are_added_up():
    async def test() -> None:
        async with pair() as (session, _, _):
            await session.post("/v1/completions", json=BODY)
            text = (await session.get("/metrics")).text
            assert "autotune_sim_prompt_tokens_total 100\n" in text
            assert "autotune_sim_prefix_cache_queries_total 100\n" in text  # the decode server looks up none
            assert "autotune_sim_generation_tokens_total 6\n" in text

    run(test)


def test_shares_of_servers_are_averaged_and_other_samples_added():
    texts = ["# HELP a_total A.\na_total 1\nb_perc 0.5\n", "# HELP a_total A.\na_total 2\nb_perc 1\nc 3\n"]
    assert add_samples(texts) == "# HELP a_total A.\na_total 3\nb_perc 0.75\nc 3\n"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "not a JSON object"),
        (b"[1]", 400, "not a JSON object"),
        (json.dumps({"prompt": [], "max_tokens": 1}).encode(), 400, "The prompt is empty"),
        (json.dumps({"prompt": [1], "model": "other"}).encode(), 404, "does not exist"),
        (json.dumps({"prompt": [1], "max_tokens": 10**6}).encode(), 400, "maximum context length"),
    ],
)
def test_an_error_of_a_server_is_the_routers_answer(body, status, words):
    async def test() -> None:
        async with pair() as (session, _, _):
            answer = await session.post("/v1/completions", content=body)
            assert (answer.status_code, words in answer.text) == (status, True)

    run(test)


@pytest.mark.parametrize(
    ("mode", "body"),
    [
        ("prefill", {"prompt": [1]}),
        ("prefill", {"prompt": [1], "stream": True, "kv_transfer_params": {"do_remote_decode": True}}),
        ("decode", {"prompt": [1]}),
        ("decode", {"prompt": [1], "kv_transfer_params": {"do_remote_prefill": True}}),
        ("decode", {"prompt": [1], "kv_transfer_params": {"do_remote_prefill": True, "remote_kv_bytes": "1"}}),
        ("decode", {"prompt": [1], "kv_transfer_params": 3}),
        (None, {"prompt": [1], "kv_transfer_params": {"do_remote_decode": True}}),
    ],
)
def test_a_server_refuses_what_is_not_for_its_role(mode, body):
    async def test() -> None:
        async with engine(*(("--disaggregation-mode", mode) if mode else ())) as (backend, _):
            status, answer = await backend.fetch("POST", "/v1/completions", json.dumps(body).encode())
            assert (status, b"kv_transfer_params" in answer or b"router" in answer) == (400, True)
            backend.close()

    run(test)


def test_replicas_get_requests_in_turn_when_none_is_busier():
    async def test() -> None:
        async with (
            engine() as (first, one),
            engine() as (second, other),
            client(Router(servers=[first, second])) as session,
        ):
            for _ in range(4):
                assert (await session.post("/v1/completions", json=BODY)).status_code == 200
            assert one.scheduler.counters.finished_requests == other.scheduler.counters.finished_requests == 2
            assert (await session.get("/v1/models")).json()["data"][0]["id"] == "qwen3-0.6b"
            assert (await session.post("/reset_prefix_cache")).status_code == 200

    run(test)


def test_a_server_that_is_not_there_is_named():
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        async with client(Router(servers=[Backend("127.0.0.1", port)])) as session:
            answer = await session.post("/v1/completions", json=BODY)
            assert answer.status_code == 502
            assert f"127.0.0.1:{port} cannot be reached" in answer.text
            health = await session.get("/health")
            assert (health.status_code, f"127.0.0.1:{port} is not ready" in health.text) == (503, True)

    run(test)


def test_a_client_that_leaves_frees_the_server():
    async def test() -> None:
        async with pair() as (session, _, decode):
            body = {**BODY, "max_tokens": 20_000, "min_tokens": 0, "stream": True}
            async with session.stream("POST", "/v1/completions", json=body) as answer:
                await anext(answer.aiter_lines())
            while not decode.scheduler.counters.aborted_requests:
                await asyncio.sleep(0.01)
            assert (await session.get("/health")).status_code == 200

    run(test)


@pytest.mark.parametrize(
    "argv",
    [[], ["--prefill", "http://a:1"], ["--server", "http://a:1", "--prefill", "http://b:1", "--decode", "http://c:1"]],
)
def test_a_router_needs_servers_of_one_kind(argv, capsys):
    with pytest.raises(SystemExit):
        router_module.main(argv)
    assert "give --server, or both --prefill and --decode" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["a:1", "https://a:1", "http://a:1/v1", "http://a:99999"])
def test_an_address_that_is_none_is_named(url, capsys):
    with pytest.raises(SystemExit):
        router_module.main(["--server", url])
    assert url in capsys.readouterr().err
