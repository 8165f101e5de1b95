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
from autotuner.simulate.faults import CRASH_STATUS, FaultPlan, RequestFault
from autotuner.simulate.http import ServerExchange
from autotuner.simulate.openai import (
    ApiError,
    CompletionResponse,
    Endpoint,
    FinishReason,
    Generation,
    error_body,
    parse_request,
)
from autotuner.simulate.realtime import RealtimeEngine
from autotuner.simulate.scheduler import ScheduledRequest
from autotuner.simulate.settings import Settings
from autotuner.simulate.world import World

LOG = logging.getLogger(__name__)
MALFORMED_EVENT = b'data: {"id": "broken", "choices": [{"index": 0, "text": "\n\n'


class Api:
    """Answers requests; before `ready` is set only with 503."""

    def __init__(self, settings: Settings, world: World, engine: RealtimeEngine) -> None:
        self.ready = False
        self._settings = settings
        self._world = world
        self._engine = engine
        self._faults = FaultPlan(settings.faults, settings.seed)
        self._request_numbers = count()
        self._start_time = int(time.time())
        self._routes: dict[str, tuple[str, Callable[[ServerExchange], None]]] = {
            "/health": ("GET", lambda exchange: exchange.send(200, b"")),
            "/v1/models": ("GET", self._models),
            "/metrics": ("GET", self._metrics),
            "/v1/completions": ("POST", lambda exchange: self._generate(exchange, "completions")),
            "/v1/chat/completions": ("POST", lambda exchange: self._generate(exchange, "chat")),
            "/reset_prefix_cache": ("POST", self._reset_prefix_cache),
        }

    def handle(self, exchange: ServerExchange) -> None:
        """Answer one request, or start to."""
        request = exchange.request
        route = self._routes.get(request.path)
        try:
            if route is None:
                raise ApiError(404, f"There is nothing at {request.path}; there is {', '.join(self._routes)}.")
            method, answer = route
            if request.method != method:
                raise ApiError(405, f"{request.path} takes {method}, not {request.method}.")
            if not self.ready:
                raise ApiError(503, "The model is being loaded.")
            answer(exchange)
        except ApiError as refused:
            exchange.send(refused.status, error_body(refused.status, str(refused), refused.param))

    def _models(self, exchange: ServerExchange) -> None:
        cards = [
            {
                "id": name,
                "object": "model",
                "created": self._start_time,
                "owned_by": "autotune-sim",
                "root": self._settings.model,
                "parent": None,
                "max_model_len": self._world.limits.max_model_len,
            }
            for name in self._settings.served_names
        ]
        exchange.send(200, json.dumps({"object": "list", "data": cards}).encode())

    def _metrics(self, exchange: ServerExchange) -> None:
        exchange.send(200, metrics.render(self._engine), metrics.CONTENT_TYPE)

    def _reset_prefix_cache(self, exchange: ServerExchange) -> None:
        empty = self._engine.scheduler.block_pool.reset_prefix_cache()
        LOG.info("prefix cache reset%s", "" if empty else "; prefixes in use stay")
        exchange.send(200, b"")

    def _generate(self, exchange: ServerExchange, endpoint: Endpoint) -> None:
        generation = parse_request(endpoint, exchange.request.body, self._world.shape.vocab_size)
        model = self._resolve_model(generation.model)
        self._check_length(generation)
        fate = self._faults.draw(generation.output_tokens)
        if fate.status == 429:
            raise ApiError(429, "Too many requests (a fault that was asked for).")
        if fate.status == 500:
            raise ApiError(500, "Internal server error (a fault that was asked for).")
        if fate.hang:
            LOG.error("hanging as --fault-hang-after asked: no token from here on")
            self._engine.hang()
        number = next(self._request_numbers)
        prefix = "cmpl" if endpoint == "completions" else "chatcmpl"
        answer = CompletionResponse(generation, f"{prefix}-sim-{number}", model)
        limits = self._world.limits
        request = ScheduledRequest(
            prompt_tokens=len(generation.prompt),
            output_tokens=fate.stop_length or generation.output_tokens,
            prompt_hashes=block_hashes(generation.prompt, limits.block_size) if limits.prefix_caching else (),
        )
        ResponseWriter(exchange, generation, answer, request, fate).start(self._engine)

    def _resolve_model(self, model: str | None) -> str:
        names = self._settings.served_names
        if model is None:
            return names[0]
        if model not in names:
            raise ApiError(404, f"The model `{model}` does not exist; served here: {', '.join(names)}.", "model")
        return model

    def _check_length(self, generation: Generation) -> None:
        longest = self._world.limits.max_model_len
        prompt, output = len(generation.prompt), generation.output_tokens
        if prompt + output > longest:
            raise ApiError(
                400,
                f"This model's maximum context length is {longest} tokens, but {prompt + output} were requested "
                f"({prompt} in the prompt, {output} in the output).",
                "prompt" if prompt >= longest else "max_tokens",
            )


class ResponseWriter:
    """Carries one request's tokens from the engine to its client, one write per iteration."""

    def __init__(
        self,
        exchange: ServerExchange,
        generation: Generation,
        response: CompletionResponse,
        request: ScheduledRequest,
        fault: RequestFault,
    ) -> None:
        self._exchange = exchange
        self._generation = generation
        self._response = response
        self._request = request
        self._fault = fault
        self._tokens_sent = 0

    def start(self, engine: RealtimeEngine) -> None:
        """Submit the request; a client that leaves takes it back."""
        self._exchange.on_disconnect = lambda: engine.abort(self._request)
        if self._generation.stream:
            self._exchange.start_stream()
        engine.submit(self._request, self._on_tokens)

    def _on_tokens(self, tokens: int) -> None:
        if self._fault.crash:
            crash()
        first = self._tokens_sent
        self._tokens_sent += tokens
        last = self._request.finish_time is not None
        if self._generation.stream:
            self._write_event(first, tokens, last)
        elif last:
            body = self._response.json_body(self._tokens_sent, self._finish_reason())
            self._exchange.send(200, body[: len(body) // 2] if self._fault.malformed else body)

    def _write_event(self, first_index: int, tokens: int, is_last: bool) -> None:
        event = self._response.stream_event(first_index, tokens, self._finish_reason() if is_last else None)
        # The second token's event is broken, or the only one's.
        if self._fault.malformed and (first_index == 1 or (is_last and first_index == 0)):
            event = MALFORMED_EVENT
        if is_last:
            self._exchange.end(event + self._response.final_events(self._tokens_sent))
        else:
            self._exchange.write(event)

    def _finish_reason(self) -> FinishReason:
        return "stop" if self._fault.stop_length is not None else "length"


def crash() -> None:
    """Die as of a segmentation fault: no clean-up, no answer."""
    LOG.critical("Segmentation fault (simulated, as --fault-crash-after asked)")
    sys.stderr.flush()
    os._exit(CRASH_STATUS)
