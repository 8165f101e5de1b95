"""How a server tokenizes prompts of words, in a chat or a completion, fitted to a few requests before the load."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from autotuner.core import RequestForm, Workload
from autotuner.endpoints.address import API_PATHS, Endpoint
from autotuner.endpoints.chat_token_fit import ChatTokenFit
from autotuner.endpoints.client import Client, NoAnswerError
from autotuner.errors import ConfigError
from autotuner.workload import scenarios
from autotuner.workload.prompts import DEFAULT_WORDS, EndpointKind, Prompts
from autotuner.workload.tokenizer import PromptWords, distinct_words, usable_words

_SHORT_PROBE_WORDS, _LONG_PROBE_WORDS = 16, 272


def fit_chat_tokens(endpoint: Endpoint, workload: Workload) -> ChatTokenFit:
    """Fit token costs to the server's prompt token counts; without counts, one token per word and no overhead.

    Words come from the model's tokenizer if given, unless the server counts more than one token for
    them and so uses another tokenizer. Otherwise they are those of the default words that the server's
    /tokenize tells apart, or all default words where it has none. ConfigError when too few are told apart.
    """
    try:
        local_words = usable_words(endpoint.tokenizer_path) if endpoint.tokenizer_path else None
        tokenizer_error = None
    except ConfigError as error:
        local_words, tokenizer_error = None, error
    parsed = (scenarios.parse(point.scenario) for point in workload.load_points)
    has_turns = any(isinstance(scenario, scenarios.ConversationScenario) for scenario in parsed)
    has_turns = has_turns and workload.endpoint == "chat"
    with Client(endpoint.url, endpoint.headers, endpoint.tls) as client:
        kind, form = workload.endpoint, workload.request_form
        probe = _WordProbe(client, endpoint.model, kind, form, has_turns, workload.request_timeout)
        if local_words is not None:
            fit = probe.fit(local_words.words)
            if not local_words.one_token_each or fit.tokens_per_word == 1.0:
                return fit
        server_words = probe.server_words()
        if server_words is None and tokenizer_error is not None:
            raise tokenizer_error
        return probe.fit(server_words.words if server_words else ())


@dataclass(frozen=True)
class _WordProbe:
    client: Client
    model: str
    kind: EndpointKind
    form: RequestForm
    has_turns: bool
    timeout: float

    def fit(self, words: tuple[str, ...]) -> ChatTokenFit:
        """The token costs of prompts of `words`; some servers count tokens only where they do not stream."""
        whole = replace(self.form, omit=(*self.form.omit, "stream", "stream_options"))
        for form in (self.form, whole):
            counts = self._counts(words, form)
            if counts is not None and counts[1] > counts[0]:
                break
        else:
            return ChatTokenFit(words=words)
        per_word = (counts[1] - counts[0]) / (_LONG_PROBE_WORDS - _SHORT_PROBE_WORDS)
        per_turn = counts[2] - counts[0] - 2 * _SHORT_PROBE_WORDS * per_word if counts[2:] else 0.0
        overhead = counts[0] - per_word * _SHORT_PROBE_WORDS
        return ChatTokenFit(overhead, per_word, max(0.0, per_turn), words)

    def _counts(self, words: tuple[str, ...], form: RequestForm) -> list[int] | None:
        """The server's counts of a short and a long prompt, and of a dialogue; None where it gives none."""
        salt = secrets.token_hex(8)
        prompts = Prompts(
            kind=self.kind, model=self.model, vocab_size=0, salt=salt, phase="probe", words=words, form=form
        )
        bodies = [prompts.body(0, _SHORT_PROBE_WORDS, 1), prompts.body(1, _LONG_PROBE_WORDS, 1)]
        if self.has_turns:
            dialogue = [prompts.text(index, _SHORT_PROBE_WORDS).decode().strip() for index in (2, 3, 4)]
            bodies.append(prompts.chat_body(dialogue, 1))
        counts: list[int] = []
        for body in bodies:
            tokens = self._prompt_tokens(body)
            if tokens is None:
                return None
            counts.append(tokens)
        return counts

    def _prompt_tokens(self, body: bytes) -> int | None:
        """The server's count of a prompt's tokens; None where it gives none."""
        try:
            events = self.client.ask(API_PATHS[self.kind], body, self.timeout).events()
        except (NoAnswerError, ValueError):
            return None
        usages = [event["usage"] for event in events if isinstance(event.get("usage"), dict)]
        counts = [count for usage in usages if type(count := usage.get("prompt_tokens")) is int]
        return counts[-1] if counts else None

    def server_words(self) -> PromptWords | None:
        """The default words that the server's /tokenize tells apart; None where it has no such route."""
        request = {"model": self.model, "prompt": " ".join(DEFAULT_WORDS), "add_special_tokens": False}
        try:
            answer = self.client.ask_root("/tokenize", request, self.timeout)
            tokens = answer.json()["tokens"] if answer.status == 200 else None
        except (NoAnswerError, ValueError, KeyError, TypeError):
            return None
        if not isinstance(tokens, list) or set(map(type, tokens)) != {int}:
            return None
        return distinct_words(DEFAULT_WORDS, tokens)
