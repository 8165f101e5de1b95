"""Which route load is sent to, and how its requests are written: completions, whose prompts have an exact length
as token ids, else as text, else chat; without the fields that the server refuses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from autotuner.core import RequestForm
from autotuner.endpoints.address import API_PATHS
from autotuner.endpoints.client import Answer, Client, NoAnswerError, RedirectedError
from autotuner.endpoints.fields import FieldSearch, consequences, refused_extra
from autotuner.endpoints.patience import FIRST_TOKEN_SECONDS, ask_until_loaded, reported_wait
from autotuner.endpoints.token import has_token, request_token
from autotuner.errors import EndpointError, as_sentence
from autotuner.workload.prompts import EndpointKind

UNSUPPORTED_STATUSES = (200, 400, 401, 403, 404, 405, 415, 422, 500, 501)
"""What servers answer without a token that lack the route, or do not offer it to this key, for this model, for these
fields or for token ids as the prompt. Other statuses pass: they say that the server is busy."""


@dataclass(frozen=True)
class Route:
    """An endpoint, the form of its requests, and what the server answered to one; None for no answer in time.

    `refusals` are the answers of the forms that were tried before, or of all where none gives a token.
    """

    endpoint: EndpointKind
    form: RequestForm
    answer: Answer | None
    refusals: tuple[Answer, ...] = ()

    @property
    def gives_token(self) -> bool:
        """Whether the server gave a token."""
        return self.answer is not None and has_token(self.answer)

    @property
    def is_refused(self) -> bool:
        """Whether the server answered, on no route with a token, and is not just busy."""
        return self.answer is not None and not self.gives_token and bool(self.refusals)

    @property
    def cause(self) -> str:
        """Why no route gives a token: what a server behind it lacks, else all answers."""
        causes = [answer for answer in self.refusals if answer.status not in UNSUPPORTED_STATUSES]
        return " ".join(dict.fromkeys(as_sentence(answer.summary) for answer in causes or self.refusals))

    def remarks(self, usual: RequestForm) -> tuple[str, ...]:
        """What is unusual about the requests, compared with the form that was asked for, and what follows from it."""
        remarks: list[str] = []
        first = self.refusals[0].summary if self.refusals else ""
        if self.form.prompts != usual.prompts and self.endpoint == "completions":
            remarks.append(f"Prompts are text, as long as the server counts them: it refuses token ids. {first}")
        elif self.endpoint == "chat" and self.refusals and self.gives_token:
            remarks.append(f"Requests go to the chat endpoint. {first}")
        remarks += consequences(usual, self.form)
        if self.gives_token and "stream_options" not in self.form.omit and not self._has_usage:
            remarks.append("The server sends no token counts: tokens are counted by the events of the stream.")
        return tuple(remarks)

    @property
    def _has_usage(self) -> bool:
        """Whether the server counted the tokens of its answer."""
        return self.answer is not None and any(event.get("usage") for event in self.answer.events())


def find_route(
    client: Client,
    model: str,
    kind: EndpointKind | None = None,
    form: RequestForm | None = None,
    time_limit: float = FIRST_TOKEN_SECONDS,
) -> Route:
    """The first route that gives a token in the form `form`, or in one with fewer fields: only `kind` if it is named.

    Each request may take `time_limit` seconds, because the model may have to be loaded first; where none is
    answered in time, the route is left unchecked. EndpointError when the server refuses a field of `form`'s own
    `extra_body`; RedirectedError if it says that the route is elsewhere.
    """
    usual = form or RequestForm()
    attempts = list(_attempts(kind, usual))
    refusals: list[Answer] = []
    busy: Route | None = None
    unchecked = Route(*attempts[0], None)
    deadline = time.monotonic() + max(time_limit, 1.0)
    for endpoint, wanted in attempts:
        search = _TokenRequests(client, model, endpoint, deadline, time_limit)
        try:
            with reported_wait("the first token"):
                found, answer = FieldSearch(search.ask, endpoint == "completions").settle(wanted)
        except RedirectedError:
            raise
        except NoAnswerError:
            # one that does not answer in time may be loading the model; one that refused will refuse again
            return busy or Route(endpoint, wanted, None, tuple(refusals))
        route = Route(endpoint, found, answer, tuple(refusals))
        if route.gives_token:
            return route
        if name := refused_extra(answer, found):
            raise EndpointError(
                f"The server refuses the field '{name}' of the extra body.",
                why=answer.summary,
                remedy="Leave it out of --extra-body or benchmark.extra_body.",
            )
        if answer.status not in UNSUPPORTED_STATUSES:
            if not refusals:
                return route
            busy = busy or route
        refusals.append(answer)
    chosen = busy or unchecked
    return replace(chosen, answer=refusals[-1], refusals=tuple(refusals))


def _attempts(kind: EndpointKind | None, form: RequestForm) -> Iterator[tuple[EndpointKind, RequestForm]]:
    if kind in (None, "completions"):
        yield "completions", form
        if form.prompts == "token-ids":
            yield "completions", replace(form, prompts="text")
    if kind in (None, "chat"):
        yield "chat", form


@dataclass(frozen=True)
class _TokenRequests:
    client: Client
    model: str
    endpoint: EndpointKind
    deadline: float
    timeout: float

    def ask(self, form: RequestForm, output_tokens: int) -> Answer:
        """One token in this form, waiting for a model that is being loaded."""

        def request() -> Answer:
            return request_token(self.client, self.model, self.endpoint, self.timeout, form, output_tokens)

        answer = ask_until_loaded(request, self.deadline)
        if answer.location is not None:
            raise RedirectedError(API_PATHS[self.endpoint], answer)
        return answer
