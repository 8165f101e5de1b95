"""Which words a chat server tells apart, and how many tokens it makes of them: a few requests before the warm-up."""

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
    """Tokens that a server adds to a prompt, makes of a word, and adds for each further pair of messages.

    `words` are those that prompts are made of, empty for our own.
    """

    overhead_tokens: float = 0.0
    tokens_per_word: float = 1.0
    turn_overhead_tokens: float = 0.0
    words: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ChatTokenFit:
        """Read what was written as JSON, in which tuples are lists."""
        return cls(**{**data, "words": tuple(data["words"])})


async def fit_chat_tokens(job: Job, dialer: Dialer) -> ChatTokenFit:
    """Ask the server; what it does not say is as if it added nothing and every word were a token.

    The words are those of the model's tokenizer where it is at hand, unless the server counts them
    otherwise: then it has another one. Else they are our own as far as the server tells them apart,
    where it says how it makes tokens of a text. ConfigError: too few are told apart.
    """
    try:
        known = usable_words(job.endpoint.tokenizer_path) if job.endpoint.tokenizer_path else None
        refusal = None
    except ConfigError as error:
        known, refusal = None, error
    if known is not None:
        fit = await _fit_token_counts(job, dialer, known.words)
        if not known.one_token_each or fit.tokens_per_word == 1.0:
            return fit
    words = await _server_words(job, dialer)
    if words is None and refusal is not None:
        raise refusal
    return await _fit_token_counts(job, dialer, words.words if words else ())


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
    bodies = [
        prompts.body(0, _SHORT_PROBE_WORDS, 1),
        prompts.body(1, _LONG_PROBE_WORDS, 1),
        prompts.chat_body(dialogue, 1),
    ]
    if not job.load_point.scenario.startswith("C("):
        del bodies[2]
    counted: list[int] = []
    unknown = ChatTokenFit(words=words)
    try:
        for text in bodies:
            tokens = await _prompt_tokens(job, dialer, text)
            if tokens is None:
                return unknown
            counted.append(tokens)
    except DialError:
        return unknown
    per_word = (counted[1] - counted[0]) / (_LONG_PROBE_WORDS - _SHORT_PROBE_WORDS)
    if per_word <= 0:
        return unknown
    per_turn = counted[2] - counted[0] - 2 * _SHORT_PROBE_WORDS * per_word if counted[2:] else 0.0
    return replace(
        unknown,
        overhead_tokens=counted[0] - per_word * _SHORT_PROBE_WORDS,
        tokens_per_word=per_word,
        turn_overhead_tokens=max(0.0, per_turn),
    )


async def _prompt_tokens(job: Job, dialer: Dialer, request_body: bytes) -> int | None:
    exchange = await _send(job, dialer, "chat", request_body)
    return decode(*extract_body(exchange.times, exchange.pieces)).prompt_tokens if exchange.status == 200 else None


async def _server_words(job: Job, dialer: Dialer) -> PromptWords | None:
    """Have the server make tokens of our words; None where it does not say."""
    request = {"model": job.endpoint.model, "prompt": " ".join(DEFAULT_WORDS), "add_special_tokens": False}
    try:
        exchange = await _send(job, dialer, "tokenize", json.dumps(request).encode())
        if exchange.status != 200:
            return None
        tokens = json.loads(b"".join(extract_body(exchange.times, exchange.pieces)[1]))["tokens"]
    except (DialError, ValueError, KeyError, TypeError):
        return None
    return (
        distinct_words(DEFAULT_WORDS, tokens) if isinstance(tokens, list) and set(map(type, tokens)) == {int} else None
    )


async def _send(job: Job, dialer: Dialer, kind: str, request_body: bytes) -> Exchange:
    connection = await dialer.open()
    ended: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()

    def done(connection: Connection, exchange: Exchange) -> None:
        ended.set_result(exchange)

    payload = b"%s%d\r\n\r\n%s" % (request_head(job.endpoint, kind), len(request_body), request_body)
    connection.send(Exchange(Request(0, 0, 1, request_body), 0.0, warmup=True), payload, done)
    exchange = await ended
    connection.close()
    return exchange
