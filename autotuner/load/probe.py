"""How many tokens a chat server makes of words: two one-token requests before the warm-up."""

from __future__ import annotations

import asyncio
from random import Random

from autotuner.load.connection import Connection, Dialer, DialError, Exchange
from autotuner.load.job import Job, request_head
from autotuner.load.response import body
from autotuner.load.stream import decode
from autotuner.workload.prompts import Prompts
from autotuner.workload.requests import Request

_SIZES = (16, 272)


async def calibrate(job: Job, dialer: Dialer) -> tuple[float, float]:
    """Return (tokens the server adds to a prompt, tokens per word); (0, 1) where it does not say."""
    prompts = Prompts(
        kind="chat",
        model=job.endpoint.model,
        vocabulary=job.endpoint.vocabulary,
        salt=f"{job.salt}\n{job.load_point}",
        phase=f"probe {Random().random()}",
    )
    counted: list[int] = []
    try:
        for index, words in enumerate(_SIZES):
            tokens = await _prompt_tokens(job, dialer, Request(index, words, 1, prompts.body(index, words, 1)))
            if tokens is None:
                return 0.0, 1.0
            counted.append(tokens)
    except DialError:
        return 0.0, 1.0
    per_word = (counted[1] - counted[0]) / (_SIZES[1] - _SIZES[0])
    return (counted[0] - per_word * _SIZES[0], per_word) if per_word > 0 else (0.0, 1.0)


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
