"""How many tokens a chat server makes of words: a few one-token requests before the warm-up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from random import Random

from autotuner.load.connection import Connection, Dialer, DialError, Exchange
from autotuner.load.job import Job, request_head
from autotuner.load.response import body
from autotuner.load.stream import decode
from autotuner.workload.prompts import Prompts
from autotuner.workload.requests import Request
from autotuner.workload.tokenizer import one_token_words

_FEW, _MANY = 16, 272


@dataclass(frozen=True)
class Fit:
    """Tokens that a server adds to a prompt, makes of a word, and adds for each further pair of messages.

    `exact`: it makes one token of each of the tokenizer's own words, so that lengths are exact.
    """

    overhead: float = 0.0
    per_word: float = 1.0
    per_turn: float = 0.0
    exact: bool = False


async def calibrate(job: Job, dialer: Dialer) -> Fit:
    """Ask the server; what it does not say is as if it added nothing and every word were a token.

    The words are those of the model's tokenizer where it is at hand, unless the server counts
    them otherwise: then it has another one.
    """
    words = one_token_words(job.endpoint.tokenizer) if job.endpoint.tokenizer else ()
    if words:
        found = await _asked(job, dialer, words)
        if found.per_word == 1.0:
            return replace(found, exact=True)
    return await _asked(job, dialer, ())


async def _asked(job: Job, dialer: Dialer, words: tuple[str, ...]) -> Fit:
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
    try:
        for index, text in enumerate(bodies):
            tokens = await _prompt_tokens(job, dialer, Request(index, 0, 1, text))
            if tokens is None:
                return Fit()
            counted.append(tokens)
    except DialError:
        return Fit()
    per_word = (counted[1] - counted[0]) / (_MANY - _FEW)
    if per_word <= 0:
        return Fit()
    per_turn = counted[2] - counted[0] - 2 * _FEW * per_word if counted[2:] else 0.0
    return Fit(counted[0] - per_word * _FEW, per_word, max(0.0, per_turn))


async def _prompt_tokens(job: Job, dialer: Dialer, request: Request) -> int | None:
    connection = await dialer.open()
    ended: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()

    def done(connection: Connection, exchange: Exchange) -> None:
        ended.set_result(exchange)

    head = request_head(job.endpoint, "chat")
    payload = b"%s%d\r\n\r\n%s" % (head, len(request.body), request.body)
    connection.send(Exchange(request, 0.0, warmup=True), payload, done)
    exchange = await ended
    connection.close()
    return decode(*body(exchange.times, exchange.pieces)).prompt_tokens if exchange.status == 200 else None
