"""The token ids a server takes, asked of servers that refuse those their model does not have."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.endpoints import token_ids
from autotuner.endpoints.token_ids import Vocabulary
from autotuner.workload.prompts import ordinary_token_ids

ASSUMED = 32_000
TOKEN = (200, json.dumps({"choices": [{"text": "a"}]}))
Refusal = Callable[[int, int], tuple[int, str]]
"""(token id, vocabulary) -> status and body."""


def vllm(token: int, size: int) -> tuple[int, str]:
    message = f"Token id {token} is out of vocabulary"
    return 400, json.dumps({"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}})


def sglang(token: int, size: int) -> tuple[int, str]:
    message = f"The input_ids [{token}] contains values greater than the vocab size ({size})."
    return 400, json.dumps({"object": "error", "message": message, "type": "BadRequest", "param": None, "code": 400})


def llama_cpp(token: int, size: int) -> tuple[int, str]:
    return 400, json.dumps({"error": {"code": 400, "message": "Prompt contains invalid tokens"}})


def fails(token: int, size: int) -> tuple[int, str]:
    return 500, "Internal Server Error"


def lies(token: int, size: int) -> tuple[int, str]:
    return 422, f"vocab_size={2 * size}, and vocab_size={size // 2}"


class Engine:
    """A server whose model has `size` token ids."""

    def __init__(self) -> None:
        self.size = 512
        self.refusal: Refusal = vllm
        self.status: int | None = None
        self.card: dict[str, Any] = {}
        self.prompts: list[list[int]] = []
        self.url = ""

    def models(self) -> tuple[int, str]:
        return 200, json.dumps({"data": [{"id": "other", "n_vocab": 7}, {"id": "m", **self.card}]})

    def complete(self, body: dict[str, Any]) -> tuple[int, str]:
        self.prompts.append(body["prompt"])
        assert body["max_tokens"] == 1
        if self.status is not None:
            return self.status, "no"
        return self.refusal(max(body["prompt"]), self.size) if max(body["prompt"]) >= self.size else TOKEN

    def find(self, **options: Any) -> Vocabulary:
        self.prompts.clear()
        return token_ids.find_vocabulary(self.url, {}, "m", assumed=ASSUMED, **options)


@pytest.fixture(scope="module")
def serving() -> Iterator[Engine]:
    engine = Engine()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body leave together

        def do_GET(self) -> None:
            self._answer(*engine.models())

        def do_POST(self) -> None:
            self._answer(*engine.complete(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

        def _answer(self, status: int, body: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    engine.url = f"http://127.0.0.1:{server.server_port}"
    yield engine
    server.shutdown()
    server.server_close()


@pytest.fixture
def engine(serving: Engine) -> Engine:
    serving.size, serving.refusal, serving.status, serving.card = 512, vllm, None, {}
    return serving


@settings(max_examples=40)
@given(size=st.integers(2, 28_799), refusal=st.sampled_from([vllm, sglang, llama_cpp, fails, lies]))
def test_what_is_found_is_taken_whole_and_close_in_few_requests(serving: Engine, size: int, refusal: Refusal) -> None:
    serving.size, serving.refusal, serving.status, serving.card = size, refusal, None, {}
    vocabulary = serving.find()
    assert vocabulary.origin == "server"
    assert 0.98 * size - 1 <= vocabulary.size <= size
    assert vocabulary.requests == len(serving.prompts) <= token_ids.MAX_REQUESTS
    assert max(ordinary_token_ids(vocabulary.size)) < size


@pytest.mark.parametrize("refusal", [vllm, sglang, llama_cpp, fails])
def test_a_model_of_512_token_ids_is_found_out(engine: Engine, refusal: Refusal) -> None:
    engine.refusal = refusal
    assert 505 <= engine.find().size <= 512


def test_a_refusal_that_names_the_vocabulary_is_checked_and_spares_the_search(engine: Engine) -> None:
    engine.refusal = sglang
    assert engine.find() == Vocabulary(512, "server", 3)
    assert engine.prompts == [[28_799], [511], [512]]


def test_a_server_that_takes_the_highest_id_of_the_load_is_asked_once(engine: Engine) -> None:
    engine.size = 28_800
    assert engine.find() == Vocabulary(ASSUMED, "assumed", 1)
    assert engine.prompts == [[28_799]]


@pytest.mark.parametrize("card", [{"meta": {"n_vocab": 50_000}}, {"vocab_size": 50_000}])
def test_what_a_server_lists_is_used_once_the_highest_id_of_it_is_taken(engine: Engine, card: dict[str, Any]) -> None:
    engine.card = card
    engine.size = 50_000
    assert engine.find() == Vocabulary(50_000, "server", 1)
    engine.size = 512
    assert engine.find().size <= 512


@pytest.mark.parametrize("card", [{"meta": 3}, {"vocab_size": "many"}, {"vocab_size": True}, {"n_vocab": -1}])
def test_what_a_server_lists_in_its_own_way_is_left_alone(engine: Engine, card: dict[str, Any]) -> None:
    engine.card = card
    assert 505 <= engine.find().size <= 512


@pytest.mark.parametrize("status", [401, 404, 429, 503])
def test_an_answer_that_says_nothing_of_token_ids_leaves_it_to_the_load(engine: Engine, status: int) -> None:
    engine.status = status
    assert engine.find() == Vocabulary(ASSUMED, "assumed", 1)


@pytest.mark.parametrize("status", [400, 500])
def test_a_server_that_takes_no_token_id_at_all_leaves_it_to_the_load(engine: Engine, status: int) -> None:
    engine.status = status
    vocabulary = engine.find()
    assert (vocabulary.size, vocabulary.origin) == (ASSUMED, "assumed")
    assert vocabulary.requests == len(engine.prompts) <= token_ids.MAX_REQUESTS


def test_a_server_that_is_not_there_leaves_it_to_the_load() -> None:
    assert token_ids.find_vocabulary("http://127.0.0.1:9", {}, "m", assumed=ASSUMED).origin == "assumed"
