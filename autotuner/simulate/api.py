"""The HTTP routes of the simulated server, and the writing of one request's response."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from autotuner.simulate import metrics
from autotuner.simulate.blocks import block_hashes
from autotuner.simulate.faults import CRASH_STATUS, FaultPlan, RequestFault
from autotuner.simulate.hand_over import REMOTE_BYTES, TransferLink, prefill_result, prompt_kv_bytes
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
from autotuner.simulate.settings import SimulationSettings
from autotuner.simulate.started_engine import StartedEngine

LOG = logging.getLogger(__name__)
MALFORMED_EVENT = b'data: {"id": "broken", "choices": [{"index": 0, "text": "\n\n'


class Api:
    """Routes and answers HTTP requests; answers everything with 503 until `ready` is set."""

    def __init__(self, settings: SimulationSettings, started_engine: StartedEngine, engine: RealtimeEngine) -> None:
        self.ready = False
        self._settings = settings
        self._started_engine = started_engine
        self._engine = engine
        self._faults = FaultPlan(settings.faults, settings.seed)
        self._link = TransferLink.of(settings)
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
        """Answer a request, or start its response when it generates tokens."""
        request = exchange.request
        route = self._routes.get(request.path)
        try:
            if route is None:
                raise ApiError(404, f"Unknown path {request.path}; known paths: {', '.join(self._routes)}.")
            method, handler = route
            if request.method != method:
                raise ApiError(405, f"{request.path} requires {method}, not {request.method}.")
            if not self.ready:
                raise ApiError(503, "The model is still loading.")
            handler(exchange)
        except ApiError as error:
            exchange.send(error.status, error_body(error.status, str(error), error.param))

    def _models(self, exchange: ServerExchange) -> None:
        cards = [
            {
                "id": name,
                "object": "model",
                "created": self._start_time,
                "owned_by": "autotune-sim",
                "root": self._settings.model,
                "parent": None,
                "max_model_len": self._started_engine.limits.max_model_len,
            }
            for name in self._settings.served_names
        ]
        exchange.send(200, json.dumps({"object": "list", "data": cards}).encode())

    def _metrics(self, exchange: ServerExchange) -> None:
        exchange.send(200, metrics.render(self._engine), metrics.CONTENT_TYPE)

    def _reset_prefix_cache(self, exchange: ServerExchange) -> None:
        is_empty = self._engine.scheduler.block_pool.reset_prefix_cache()
        LOG.info("prefix cache reset%s", "" if is_empty else "; prefixes in use stay")
        exchange.send(200, b"")

    def _generate(self, exchange: ServerExchange, endpoint: Endpoint) -> None:
        """Handle a completion request: check it, draw its injected fault, and hand it to the engine."""
        generation = parse_request(endpoint, exchange.request.body, self._started_engine.shape.vocab_size)
        model = self._resolve_model(generation.model)
        self._check_length(generation)
        self._check_role(generation)
        fault = self._faults.draw(generation.output_tokens)
        if fault.status == 429:
            raise ApiError(429, "Too many requests (injected fault).")
        if fault.status == 500:
            raise ApiError(500, "Internal server error (injected fault).")
        if fault.hang:
            LOG.error("hanging as --fault-hang-after asked: no token from here on")
            self._engine.hang()
        number = next(self._request_numbers)
        prefix = "cmpl" if endpoint == "completions" else "chatcmpl"
        response = CompletionResponse(generation, f"{prefix}-sim-{number}", model)
        limits = self._started_engine.limits
        request = ScheduledRequest(
            prompt_tokens=len(generation.prompt),
            output_tokens=fault.stop_length or generation.output_tokens,
            prompt_hashes=block_hashes(generation.prompt, limits.block_size) if limits.prefix_caching else (),
        )
        writer = ResponseWriter(exchange, generation, response, request, fault)
        mode, memory_plan = self._settings.disaggregation_mode, self._started_engine.memory_plan
        if mode == "prefill":
            request.output_tokens = 1
            writer.kv_transfer_params = prefill_result(memory_plan, request.prompt_tokens)
        if mode != "decode":
            writer.start(self._engine)
            return
        assert generation.kv_transfer_params is not None
        request.received_tokens = request.prompt_tokens - 1  # the last one is computed here, for the first token
        sent_bytes = generation.kv_transfer_params[REMOTE_BYTES]
        received_bytes = prompt_kv_bytes(memory_plan, request.prompt_tokens)
        writer.start(self._engine, at=self._link.receive(time.monotonic(), max(sent_bytes, received_bytes)))

    def _resolve_model(self, model: str | None) -> str:
        names = self._settings.served_names
        if model is None:
            return names[0]
        if model not in names:
            raise ApiError(404, f"The model `{model}` does not exist; served here: {', '.join(names)}.", "model")
        return model

    def _check_role(self, generation: Generation) -> None:
        """ApiError for a request that is not for a server of this role."""
        transfer, mode = generation.kv_transfer_params or {}, self._settings.disaggregation_mode
        kv_bytes = transfer.get(REMOTE_BYTES)
        is_handed_over = transfer.get("do_remote_prefill") is True
        if mode is None and transfer:
            raise ApiError(400, "This server computes whole requests and takes no kv_transfer_params.")
        if mode == "prefill" and (transfer.get("do_remote_decode") is not True or generation.stream):
            raise ApiError(400, "This is a prefill server: send requests to the router.", "kv_transfer_params")
        if mode == "decode" and not (is_handed_over and isinstance(kv_bytes, int | float) and kv_bytes >= 0):
            raise ApiError(400, "This is a decode server: send requests to the router.", "kv_transfer_params")

    def _check_length(self, generation: Generation) -> None:
        max_model_len = self._started_engine.limits.max_model_len
        prompt, output = len(generation.prompt), generation.output_tokens
        if prompt + output > max_model_len:
            raise ApiError(
                400,
                f"This model's maximum context length is {max_model_len} tokens, but {prompt + output} were requested "
                f"({prompt} in the prompt, {output} in the output).",
                "prompt" if prompt >= max_model_len else "max_tokens",
            )


class ResponseWriter:
    """Writes the tokens of one request to its client, one write per iteration."""

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
        self.kv_transfer_params: Mapping[str, Any] | None = None

    def start(self, engine: RealtimeEngine, *, at: float | None = None) -> None:
        """Submit the request to the engine, now or `at` a monotonic time; aborted if the client disconnects."""
        self._exchange.on_disconnect = lambda: engine.abort(self._request)
        if self._generation.stream:
            self._exchange.start_stream()
        if at is None:
            engine.submit(self._request, self._on_tokens)
        else:
            engine.submit_at(at, self._request, self._on_tokens)

    def _on_tokens(self, tokens: int) -> None:
        if self._fault.crash:
            crash()
        first_index = self._tokens_sent
        self._tokens_sent += tokens
        is_last = self._request.finish_time is not None
        if self._generation.stream:
            self._write_event(first_index, tokens, is_last)
        elif is_last:
            body = self._response.json_body(self._tokens_sent, self._finish_reason(), self.kv_transfer_params)
            self._exchange.send(200, body[: len(body) // 2] if self._fault.malformed else body)

    def _write_event(self, first_index: int, tokens: int, is_last: bool) -> None:
        event = self._response.stream_event(first_index, tokens, self._finish_reason() if is_last else None)
        # The second token's event is malformed, or the first one's if it is the only one.
        if self._fault.malformed and (first_index == 1 or (is_last and first_index == 0)):
            event = MALFORMED_EVENT
        if is_last:
            self._exchange.end(event + self._response.final_events(self._tokens_sent))
        else:
            self._exchange.write(event)

    def _finish_reason(self) -> FinishReason:
        return "stop" if self._fault.stop_length is not None else "length"


def crash() -> None:
    """End the process as a segmentation fault would: no clean-up, no response."""
    LOG.critical("Segmentation fault (simulated, as --fault-crash-after asked)")
    sys.stderr.flush()
    os._exit(CRASH_STATUS)
