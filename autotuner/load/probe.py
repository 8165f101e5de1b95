"""Probes how a chat server tokenizes prompts, with a few requests before the warm-up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from autotuner.errors import ConfigError
from autotuner.load.connection import Connection, Dialer, DialError, Exchange
from autotuner.load.job import Job, request_head
from autotuner.load.response import extract_body
from autotuner.load.stream import decode
from autotuner.workload.prompts import DEFAULT_WORDS, Prompts
from autotuner.workload.requests import Request
from autotuner.workload.tokenizer import PromptWords, distinct_words, usable_words

_SHORT_PROBE_WORDS, _LONG_PROBE_WORDS = 16, 272


@dataclass(frozen=True)
class ChatTokenFit:
    """Token costs of a chat prompt: per prompt, per word, and per further pair of messages.

    `words` are the words that prompts are made of, empty for the default ones.
    """

    overhead_tokens: float = 0.0
    tokens_per_word: float = 1.0
    turn_overhead_tokens: float = 0.0
    words: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ChatTokenFit:
        """Read parsed JSON, in which tuples are lists."""
        return cls(**{**data, "words": tuple(data["words"])})


async def fit_chat_tokens(job: Job, dialer: Dialer) -> ChatTokenFit:
    """Fit token costs to the server's prompt token counts; without counts, one token per word and no overhead.

    Words come from the model's tokenizer if given, unless the server counts more than one token for
    them and so uses another tokenizer. Otherwise they are those of the default words that the server's
    /tokenize tells apart, or all default words where it has none. ConfigError when too few are told apart.
    """
    try:
        local_words = usable_words(job.endpoint.tokenizer_path) if job.endpoint.tokenizer_path else None
        tokenizer_error = None
    except ConfigError as error:
        local_words, tokenizer_error = None, error
    if local_words is not None:
        fit = await _fit_token_counts(job, dialer, local_words.words)
        if not local_words.one_token_each or fit.tokens_per_word == 1.0:
            return fit
    server_words = await _server_words(job, dialer)
    if server_words is None and tokenizer_error is not None:
        raise tokenizer_error
    return await _fit_token_counts(job, dialer, server_words.words if server_words else ())


async def _fit_token_counts(job: Job, dialer: Dialer, words: tuple[str, ...]) -> ChatTokenFit:
    prompts = Prompts(
        kind="chat",
        model=job.endpoint.model,
        vocab_size=job.endpoint.vocab_size,
        salt=f"{job.salt}\n{job.load_point}",
        phase=f"probe {Random().random()}",
        words=words,
    )
    dialogue = [prompts.text(index, _SHORT_PROBE_WORDS).decode().strip() for index in (2, 3, 4)]
    short, long = prompts.body(0, _SHORT_PROBE_WORDS, 1), prompts.body(1, _LONG_PROBE_WORDS, 1)
    bodies = [short, long, prompts.chat_body(dialogue, 1)]
    if not job.load_point.scenario.startswith("C("):
        del bodies[2]
    counts: list[int] = []
    default = ChatTokenFit(words=words)
    try:
        for request_body in bodies:
            tokens = await _prompt_tokens(job, dialer, request_body)
            if tokens is None:
                return default
            counts.append(tokens)
    except DialError:
        return default
    per_word = (counts[1] - counts[0]) / (_LONG_PROBE_WORDS - _SHORT_PROBE_WORDS)
    if per_word <= 0:
        return default
    per_turn = counts[2] - counts[0] - 2 * _SHORT_PROBE_WORDS * per_word if counts[2:] else 0.0
    return replace(
        default,
        overhead_tokens=counts[0] - per_word * _SHORT_PROBE_WORDS,
        tokens_per_word=per_word,
        turn_overhead_tokens=max(0.0, per_turn),
    )


async def _prompt_tokens(job: Job, dialer: Dialer, request_body: bytes) -> int | None:
    exchange = await _send(job, dialer, "chat", request_body)
    return decode(*extract_body(exchange.times, exchange.pieces)).prompt_tokens if exchange.status == 200 else None


async def _server_words(job: Job, dialer: Dialer) -> PromptWords | None:
    """The default words that the server's /tokenize tells apart; None where it has no such route."""
    request = {"model": job.endpoint.model, "prompt": " ".join(DEFAULT_WORDS), "add_special_tokens": False}
    try:
        exchange = await _send(job, dialer, "tokenize", json.dumps(request).encode())
        if exchange.status != 200:
            return None
        tokens = json.loads(b"".join(extract_body(exchange.times, exchange.pieces)[1]))["tokens"]
    except (DialError, ValueError, KeyError, TypeError):
        return None
    is_token_list = isinstance(tokens, list) and set(map(type, tokens)) == {int}
    return distinct_words(DEFAULT_WORDS, tokens) if is_token_list else None


async def _send(job: Job, dialer: Dialer, kind: str, request_body: bytes) -> Exchange:
    connection = await dialer.open()
    completed: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()

    def on_done(connection: Connection, exchange: Exchange) -> None:
        completed.set_result(exchange)

    payload = b"%s%d\r\n\r\n%s" % (request_head(job.endpoint, kind), len(request_body), request_body)
    connection.send(Exchange(Request(0, 0, 1, request_body), 0.0, warmup=True), payload, on_done)
    exchange = await completed
    connection.close()
    return exchange
