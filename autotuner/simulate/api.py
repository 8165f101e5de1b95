"""The server's endpoints: which path does what, and one generation from request to last byte."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from itertools import count

from autotuner.simulate import metrics
from autotuner.simulate.blocks import block_hashes
from autotuner.simulate.faults import CRASH_STATUS, Fate, FaultPlan
from autotuner.simulate.http import Exchange
from autotuner.simulate.openai import Answer, Endpoint, FinishReason, Generation, RefusedError, error_body, parse
from autotuner.simulate.realtime import RealtimeEngine
from autotuner.simulate.scheduler import Request
from autotuner.simulate.settings import Settings
from autotuner.simulate.world import World

LOG = logging.getLogger(__name__)
BROKEN = b'data: {"id": "broken", "choices": [{"index": 0, "text": "\n\n'


class Api:
    """Answers requests; before `ready` is set only with 503."""

    def __init__(self, settings: Settings, world: World, engine: RealtimeEngine) -> None:
        self.ready = False
        self._settings = settings
        self._world = world
        self._engine = engine
        self._faults = FaultPlan(settings.faults, settings.seed)
        self._numbers = count()
        self._started = int(time.time())
        self._routes: dict[str, tuple[str, Callable[[Exchange], None]]] = {
            "/health": ("GET", lambda exchange: exchange.send(200, b"")),
            "/v1/models": ("GET", self._models),
            "/metrics": ("GET", self._metrics),
            "/v1/completions": ("POST", lambda exchange: self._generate(exchange, "completions")),
            "/v1/chat/completions": ("POST", lambda exchange: self._generate(exchange, "chat")),
            "/reset_prefix_cache": ("POST", self._reset_prefix_cache),
        }

    def handle(self, exchange: Exchange) -> None:
        """Answer one request, or start to."""
        request = exchange.request
        route = self._routes.get(request.path)
        try:
            if route is None:
                raise RefusedError(404, f"There is nothing at {request.path}; there is {', '.join(self._routes)}.")
            method, answer = route
            if request.method != method:
                raise RefusedError(405, f"{request.path} takes {method}, not {request.method}.")
            if not self.ready:
                raise RefusedError(503, "The model is being loaded.")
            answer(exchange)
        except RefusedError as refused:
            exchange.send(refused.status, error_body(refused.status, str(refused), refused.param))

    def _models(self, exchange: Exchange) -> None:
        cards = [
            {
                "id": name,
                "object": "model",
                "created": self._started,
                "owned_by": "autotune-sim",
                "root": self._settings.model,
                "parent": None,
                "max_model_len": self._world.limits.max_model_len,
            }
            for name in self._settings.served_names
        ]
        exchange.send(200, json.dumps({"object": "list", "data": cards}).encode())

    def _metrics(self, exchange: Exchange) -> None:
        exchange.send(200, metrics.render(self._engine), metrics.CONTENT_TYPE)

    def _reset_prefix_cache(self, exchange: Exchange) -> None:
        empty = self._engine.scheduler.pool.forget_prefixes()
        LOG.info("prefix cache reset%s", "" if empty else "; prefixes in use stay")
        exchange.send(200, b"")

    def _generate(self, exchange: Exchange, endpoint: Endpoint) -> None:
        generation = parse(endpoint, exchange.request.body, self._world.shape.vocabulary)
        model = self._served(generation.model)
        self._check_length(generation)
        fate = self._faults.next(generation.output_tokens)
        if fate.status == 429:
            raise RefusedError(429, "Too many requests (a fault that was asked for).")
        if fate.status == 500:
            raise RefusedError(500, "Internal server error (a fault that was asked for).")
        if fate.hang:
            LOG.error("hanging as --fault-hang-after asked: no token from here on")
            self._engine.hang()
        number = next(self._numbers)
        prefix = "cmpl" if endpoint == "completions" else "chatcmpl"
        answer = Answer(generation, f"{prefix}-sim-{number}", model)
        limits = self._world.limits
        request = Request(
            prompt_tokens=len(generation.prompt),
            output_tokens=fate.stop_at or generation.output_tokens,
            hashes=block_hashes(generation.prompt, limits.block_size) if limits.prefix_caching else (),
        )
        Delivery(exchange, generation, answer, request, fate).start(self._engine)

    def _served(self, model: str | None) -> str:
        names = self._settings.served_names
        if model is None:
            return names[0]
        if model not in names:
            raise RefusedError(404, f"The model `{model}` does not exist; served here: {', '.join(names)}.", "model")
        return model

    def _check_length(self, generation: Generation) -> None:
        longest = self._world.limits.max_model_len
        prompt, output = len(generation.prompt), generation.output_tokens
        if prompt + output > longest:
            raise RefusedError(
                400,
                f"This model's maximum context length is {longest} tokens, but {prompt + output} were requested "
                f"({prompt} in the prompt, {output} in the output).",
                "prompt" if prompt >= longest else "max_tokens",
            )


class Delivery:
    """Carries one request's tokens from the engine to its client, one write per iteration."""

    def __init__(
        self, exchange: Exchange, generation: Generation, answer: Answer, request: Request, fate: Fate
    ) -> None:
        self._exchange = exchange
        self._generation = generation
        self._answer = answer
        self._request = request
        self._fate = fate
        self._sent = 0

    def start(self, engine: RealtimeEngine) -> None:
        """Submit the request; a client that leaves takes it back."""
        self._exchange.on_disconnect = lambda: engine.abort(self._request)
        if self._generation.stream:
            self._exchange.start_stream()
        engine.submit(self._request, self._tokens)

    def _tokens(self, tokens: int) -> None:
        if self._fate.crash:
            crash()
        first = self._sent
        self._sent += tokens
        last = self._request.finished is not None
        if self._generation.stream:
            self._stream(first, tokens, last)
        elif last:
            body = self._answer.whole(self._sent, self._reason())
            self._exchange.send(200, body[: len(body) // 2] if self._fate.malformed else body)

    def _stream(self, first: int, tokens: int, last: bool) -> None:
        event = self._answer.event(first, tokens, self._reason() if last else None)
        # The second token's event is broken, or the only one's.
        if self._fate.malformed and (first == 1 or (last and first == 0)):
            event = BROKEN
        if last:
            self._exchange.end(event + self._answer.last(self._sent))
        else:
            self._exchange.write(event)

    def _reason(self) -> FinishReason:
        return "stop" if self._fate.stop_at is not None else "length"


def crash() -> None:
    """Die as of a segmentation fault: no clean-up, no answer."""
    LOG.critical("Segmentation fault (simulated, as --fault-crash-after asked)")
    sys.stderr.flush()
    os._exit(CRASH_STATUS)
