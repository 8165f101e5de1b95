"""The OpenAI wire format: parsing of request bodies and rendering of responses."""

from __future__ import annotations

import json
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

Endpoint = Literal["completions", "chat"]
FinishReason = Literal["length", "stop"]
DEFAULT_COMPLETION_TOKENS = 16
"""Output length of a completion without max_tokens, as the API defines it."""
DEFAULT_CHAT_TOKENS = 256
"""Output length of a chat without max_tokens, where a real model would stop by itself."""
WORDS = ("simulated", "tokens", "carry", "no", "meaning", "they", "only", "keep", "time", "and", "count")
FINGERPRINT = '"system_fingerprint":"simulated"'
DONE_EVENT = b"data: [DONE]\n\n"


class ApiError(Exception):
    """A request that is answered with an HTTP error status and an OpenAI error object."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param


@dataclass(frozen=True, slots=True)
class Generation:
    """A parsed generation request; `prompt` is a sequence of token ids or words.

    `kv_transfer_params` are what a router says of the hand-over between prefill and decode, as for vLLM.
    """

    endpoint: Endpoint
    model: str | None
    prompt: Sequence[Hashable]
    output_tokens: int
    stream: bool
    include_usage: bool
    kv_transfer_params: Mapping[str, Any] | None = None


def parse_request(endpoint: Endpoint, body: bytes | bytearray, vocab_size: int) -> Generation:
    """Parse a request body; ApiError if it is invalid."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"The body is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ApiError(400, "The body is not a JSON object.")
    model = data.get("model")
    if model is not None and not isinstance(model, str):
        raise ApiError(400, "model must be a string.", "model")
    if data.get("n") not in (None, 1):
        raise ApiError(400, "Only n=1 is supported.", "n")
    options = data.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise ApiError(400, "stream_options must be an object.", "stream_options")
    transfer = data.get("kv_transfer_params")
    if transfer is not None and not isinstance(transfer, dict):
        raise ApiError(400, "kv_transfer_params must be an object.", "kv_transfer_params")
    is_chat = endpoint == "chat"
    prompt = _parse_messages(data.get("messages")) if is_chat else _parse_prompt(data.get("prompt"), vocab_size)
    if not prompt:
        raise ApiError(400, "The prompt is empty.", "prompt")
    return Generation(
        endpoint=endpoint,
        model=model,
        prompt=prompt,
        output_tokens=_parse_output_tokens(endpoint, data),
        stream=_parse_flag(data, "stream"),
        include_usage=_parse_flag(options or {}, "include_usage"),
        kv_transfer_params=transfer,
    )


def _parse_flag(data: dict[str, Any], name: str) -> bool:
    value = data.get(name)
    if value is not None and not isinstance(value, bool):
        raise ApiError(400, f"{name} must be true or false.", name)
    return bool(value)


def _parse_integer(data: dict[str, Any], name: str, minimum: int) -> int | None:
    value = data.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ApiError(400, f"{name} must be an integer of at least {minimum}, not {value!r}.", name)
    return value


def _parse_output_tokens(endpoint: Endpoint, data: dict[str, Any]) -> int:
    max_tokens = _parse_integer(data, "max_completion_tokens", 1) or _parse_integer(data, "max_tokens", 1)
    min_tokens = _parse_integer(data, "min_tokens", 0) or 0
    _parse_flag(data, "ignore_eos")
    if max_tokens is None:
        max_tokens = max(min_tokens, DEFAULT_COMPLETION_TOKENS if endpoint == "completions" else DEFAULT_CHAT_TOKENS)
    if min_tokens > max_tokens:
        raise ApiError(400, f"min_tokens {min_tokens} is above max_tokens {max_tokens}.", "min_tokens")
    return max_tokens


def _parse_prompt(prompt: Any, vocab_size: int) -> Sequence[Hashable]:
    """Accept text, token ids, or a list that holds one of either; text becomes one token per word."""
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        if len(prompt) > 1:
            raise ApiError(400, "Only one prompt per request is supported.", "prompt")
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt.split()
    # The exact type rather than isinstance(): bool is a subclass of int.
    if not isinstance(prompt, list) or not set(map(type, prompt)) <= {int}:
        raise ApiError(400, "prompt must be text or a list of token ids.", "prompt")
    if prompt and not 0 <= min(prompt) <= max(prompt) < vocab_size:
        invalid_id = min(prompt) if min(prompt) < 0 else max(prompt)
        raise ApiError(400, f"Token id {invalid_id} is out of vocabulary.", "prompt")
    return prompt


def _parse_messages(messages: Any) -> Sequence[Hashable]:
    """The words of all chat messages, which count as one token each."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ApiError(400, "messages must be a list of objects.", "messages")
    words: list[str] = []
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
        for part in parts:
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise ApiError(400, "Only text content is supported.", "messages")
            words += cast("str", part["text"]).split()
    return words


def error_body(status: int, message: str, param: str | None = None) -> bytes:
    """Render the error object of OpenAI-compatible servers."""
    error_type = {
        400: "BadRequestError",
        404: "NotFoundError",
        405: "MethodNotAllowedError",
        429: "RateLimitError",
        503: "ServiceUnavailableError",
    }.get(status, "InternalServerError")
    return json.dumps({"error": {"message": message, "type": error_type, "param": param, "code": status}}).encode()


def output_text(first_index: int, count: int) -> str:
    """The text of `count` output tokens from `first_index` on: one word per token."""
    text = " ".join(WORDS[index % len(WORDS)] for index in range(first_index, first_index + count))
    return f" {text}" if first_index else text


class CompletionResponse:
    """Renders the response to one generation request, as a JSON body or as server-sent events."""

    def __init__(self, generation: Generation, request_id: str, model: str) -> None:
        self._prompt_tokens = len(generation.prompt)
        self._is_chat = generation.endpoint == "chat"
        self._include_usage = generation.include_usage
        chat_type = "chat.completion.chunk" if generation.stream else "chat.completion"
        object_type = chat_type if self._is_chat else "text_completion"
        self._prefix = (
            f'{{"id":{json.dumps(request_id)},"object":"{object_type}","created":{int(time.time())},'
            f'"model":{json.dumps(model)},{FINGERPRINT},"choices":['
        )
        self._suffix = '],"usage":null}\n\n' if self._include_usage else "]}\n\n"

    def json_body(
        self, tokens: int, reason: FinishReason, kv_transfer_params: Mapping[str, Any] | None = None
    ) -> bytes:
        """Render the complete response with `tokens` output tokens, and what the next server needs, if anything."""
        text = json.dumps(output_text(0, tokens))
        content = f'"message":{{"role":"assistant","content":{text}}}' if self._is_chat else f'"text":{text}'
        choice = f'{{"index":0,{content},"logprobs":null,"finish_reason":"{reason}","stop_reason":null}}'
        transfer = f',"kv_transfer_params":{json.dumps(kv_transfer_params)}' if kv_transfer_params else ""
        return f'{self._prefix}{choice}],"usage":{self._usage_json(tokens)}{transfer}}}'.encode()

    def stream_event(self, first_index: int, count: int, reason: FinishReason | None = None) -> bytes:
        """Render the event of `count` output tokens from `first_index` on; a chat's first follows a role event."""
        text = output_text(first_index, count)
        ending = f'"{reason}","stop_reason":null' if reason else "null"
        content = f'"delta":{{"content":"{text}"}}' if self._is_chat else f'"text":"{text}"'
        event = f'data: {self._prefix}{{"index":0,{content},"logprobs":null,"finish_reason":{ending}}}{self._suffix}'
        return (self._role_event() + event if self._is_chat and not first_index else event).encode()

    def final_events(self, tokens: int) -> bytes:
        """Render the events after the last token: usage if requested, then [DONE]."""
        if not self._include_usage:
            return DONE_EVENT
        return f'data: {self._prefix}],"usage":{self._usage_json(tokens)}}}\n\n'.encode() + DONE_EVENT

    def _role_event(self) -> str:
        choice = '{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
        return f"data: {self._prefix}{choice}{self._suffix}"

    def _usage_json(self, tokens: int) -> str:
        prompt = self._prompt_tokens
        return f'{{"prompt_tokens":{prompt},"total_tokens":{prompt + tokens},"completion_tokens":{tokens}}}'
