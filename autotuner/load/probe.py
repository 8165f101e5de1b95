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
from autotuner.load.response import body
from autotuner.load.stream import decode
from autotuner.workload.prompts import WORDS, Prompts
from autotuner.workload.requests import Request
from autotuner.workload.tokenizer import Words, distinct_words, usable_words

_FEW, _MANY = 16, 272


@dataclass(frozen=True)
class Fit:
    """Tokens that a server adds to a prompt, makes of a word, and adds for each further pair of messages.

    `words` are those that prompts are made of, empty for our own.
    """

    overhead: float = 0.0
    per_word: float = 1.0
    per_turn: float = 0.0
    words: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fit:
        """Read what was written as JSON, in which tuples are lists."""
        return cls(**{**data, "words": tuple(data["words"])})


async def calibrate(job: Job, dialer: Dialer) -> Fit:
    """Ask the server; what it does not say is as if it added nothing and every word were a token.

    The words are those of the model's tokenizer where it is at hand, unless the server counts them
    otherwise: then it has another one. Else they are our own as far as the server tells them apart,
    where it says how it makes tokens of a text. ConfigError: too few are told apart.
    """
    try:
        known = usable_words(job.endpoint.tokenizer) if job.endpoint.tokenizer else None
        refusal = None
    except ConfigError as error:
        known, refusal = None, error
    if known is not None:
        fit = await _count(job, dialer, known.words)
        if not known.exact or fit.per_word == 1.0:
            return fit
    words = await _server_words(job, dialer)
    if words is None and refusal is not None:
        raise refusal
    return await _count(job, dialer, words.words if words else ())


async def _count(job: Job, dialer: Dialer, words: tuple[str, ...]) -> Fit:
    prompts = Prompts(
        kind="chat",
        model=job.endpoint.model,
        vocabulary=job.endpoint.vocabulary,
        salt=f"{job.salt}\n{job.load_point}",
        phase=f"probe {Random().random()}",
        words=words,
    )
    dialogue = [prompts.text(index, _FEW).decode().strip() for index in (2, 3, 4)]
    bodies = [prompts.body(0, _FEW, 1), prompts.body(1, _MANY, 1), prompts.dialogue(dialogue, 1)]
    if not job.load_point.scenario.startswith("C("):
        del bodies[2]
    counted: list[int] = []
    unknown = Fit(words=words)
    try:
        for text in bodies:
            tokens = await _prompt_tokens(job, dialer, text)
            if tokens is None:
                return unknown
            counted.append(tokens)
    except DialError:
        return unknown
    per_word = (counted[1] - counted[0]) / (_MANY - _FEW)
    if per_word <= 0:
        return unknown
    per_turn = counted[2] - counted[0] - 2 * _FEW * per_word if counted[2:] else 0.0
    return replace(unknown, overhead=counted[0] - per_word * _FEW, per_word=per_word, per_turn=max(0.0, per_turn))


async def _prompt_tokens(job: Job, dialer: Dialer, text: bytes) -> int | None:
    exchange = await _exchange(job, dialer, "chat", text)
    return decode(*body(exchange.times, exchange.pieces)).prompt_tokens if exchange.status == 200 else None


async def _server_words(job: Job, dialer: Dialer) -> Words | None:
    """Have the server make tokens of our words; None where it does not say."""
    request = {"model": job.endpoint.model, "prompt": " ".join(WORDS), "add_special_tokens": False}
    try:
        exchange = await _exchange(job, dialer, "tokenize", json.dumps(request).encode())
        if exchange.status != 200:
            return None
        tokens = json.loads(b"".join(body(exchange.times, exchange.pieces)[1]))["tokens"]
    except (DialError, ValueError, KeyError, TypeError):
        return None
    return distinct_words(WORDS, tokens) if isinstance(tokens, list) and set(map(type, tokens)) == {int} else None


async def _exchange(job: Job, dialer: Dialer, kind: str, text: bytes) -> Exchange:
    connection = await dialer.open()
    ended: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()

    def done(connection: Connection, exchange: Exchange) -> None:
        ended.set_result(exchange)

    payload = b"%s%d\r\n\r\n%s" % (request_head(job.endpoint, kind), len(text), text)
    connection.send(Exchange(Request(0, 0, 1, text), 0.0, warmup=True), payload, done)
    exchange = await ended
    connection.close()
    return exchange
