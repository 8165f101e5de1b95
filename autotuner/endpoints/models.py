"""Which models a running server serves, and whether it is the simulated engine."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from autotuner.core import RequestForm
from autotuner.endpoints.address import Address
from autotuner.endpoints.client import TIMEOUT_SECONDS, Answer, Client, NoAnswerError, RedirectedError
from autotuner.endpoints.headers import key_remedy, sends_key
from autotuner.endpoints.patience import FIRST_TOKEN_SECONDS, ask_until_loaded, reported_wait
from autotuner.endpoints.route import Route, find_route
from autotuner.endpoints.tls import TRUST_REMEDY, TlsTrust
from autotuner.errors import EndpointError, UsageError, as_sentence, pluralize
from autotuner.workload.prompts import EndpointKind

log = logging.getLogger(__name__)

SIMULATOR_OWNER = "autotune-sim"
"""The `owned_by` of models that the simulated engine lists."""

UNAUTHORIZED_STATUSES = (401, 403)

UNAVAILABLE_STATUSES = (502, 503, 504)
"""What gateways answer for a server that is not there."""

UNKNOWN_MODEL_STATUSES = (400, 404, 422)
"""What servers answer to a request for a model that they do not serve."""

NO_ROUTE_STATUSES = (200, 404, 405)
"""What servers answer where they have no such API, some with a page of their own."""

MAX_REDIRECTS = 5


@dataclass(frozen=True)
class ModelList:
    """The names of the models that a server lists, and whether it is the simulated engine."""

    names: tuple[str, ...]
    is_simulated: bool = False

    def __str__(self) -> str:
        return ", ".join(self.names) or "nothing"

    def includes(self, model: str) -> bool:
        """Whether a model is listed, by its name, by one with the tag `latest`, or by a wildcard such as `openai/*`."""
        tagged = f"{model}:latest"
        return tagged in self.names or any(fnmatchcase(model, name.replace("[", "[[]")) for name in self.names)


@dataclass(frozen=True)
class ServedModel:
    """The model as the server names it, and the API route and the form of the requests that load is sent with.

    `url` is where the API was found. `remarks` say what is unusual about the requests, and what follows from it.
    """

    model: str
    endpoint: EndpointKind
    is_simulated: bool
    url: str
    form: RequestForm = field(default_factory=RequestForm)
    remarks: tuple[str, ...] = ()


def model_cards(client: Client, deadline: float = 0.0, timeout: float = TIMEOUT_SECONDS) -> list[dict[str, Any]]:
    """What the server says about each model, its "id" and more; NoAnswerError if it has no list.

    A model without a name, which some list as null, is left out. A server that is loading its model is asked again
    until `deadline` of the monotonic clock.
    """
    answer = ask_until_loaded(lambda: client.ask("/models", timeout=timeout, body_timeout=TIMEOUT_SECONDS), deadline)
    if answer.location == f"{client.address.origin}{client.address.api_target('/models/')}":
        answer = client.ask("/models/", timeout=timeout)  # some frameworks redirect to a slash
    if answer.location is not None:
        raise RedirectedError("/models", answer)
    answer.require_ok()
    try:
        data = answer.json()
        cards = data if isinstance(data, list) else data["data"]
        return [{**card, "id": str(card["id"])} for card in cards if card["id"] not in (None, "")]
    except (ValueError, KeyError, TypeError) as error:
        path = client.address.api_target("/models").partition("?")[0]
        raise NoAnswerError(f"{path} did not answer with a list of models.", answer.status) from error


def list_models(client: Client, deadline: float = 0.0, timeout: float = TIMEOUT_SECONDS) -> ModelList:
    """The models that the server lists; NoAnswerError if it does not. See `model_cards`."""
    cards = model_cards(client, deadline, timeout)
    is_simulated = any(card.get("owned_by") == SIMULATOR_OWNER for card in cards)
    return ModelList(tuple(card["id"] for card in cards), is_simulated)


def find_served_model(
    url: str,
    headers: Mapping[str, str],
    *,
    model: str | None = None,
    endpoint: EndpointKind | None = None,
    must_answer: bool = False,
    form: RequestForm | None = None,
    tls: TlsTrust | None = None,
    time_limit: float = FIRST_TOKEN_SECONDS,
) -> ServedModel:
    """Ask a server which model it serves, and find a route, unless `endpoint` is given, and requests that it takes.

    With `model` given, no error is raised for a server that does not answer, unless it `must_answer`: the load
    test reports it. Nor need it list that model, as long as it does not refuse it: lists may be empty, or one page.
    `form` is how requests are written if the server takes them; `time_limit` is for its first token.
    UsageError if no model is given and the server lists several or none; EndpointError if it
    does not answer, refuses, serves other models, or gives no token on any route.
    """
    address = Address.from_url(url)
    if endpoint and address.kind and endpoint != address.kind:
        raise UsageError(
            f"The address is of the {address.kind} endpoint, and the endpoint that was named is {endpoint}.",
            remedy=f"Leave the endpoint out, or give the address of the API: {replace(address, kind=None).url}.",
        )
    _warn_of_proxy(address)
    for _ in range(MAX_REDIRECTS):
        question = _Question(
            address, headers, tls, model, endpoint or address.kind, must_answer, form or RequestForm(), time_limit
        )
        try:
            served = question.find_model()
        except RedirectedError as redirect:
            moved = _redirect_target(address, redirect, headers)
            _warn(f"{address.url} redirects to {moved.url}, which is used directly.")
            address = moved
        else:
            for remark in served.remarks:
                _warn(remark, served.url)
            return served
    raise EndpointError(
        f"{url} redirects more than {MAX_REDIRECTS} times.", remedy="Give the address that it leads to in the end."
    )


@dataclass(frozen=True)
class _Question:
    """What is asked of the server at one address."""

    address: Address
    headers: Mapping[str, str]
    tls: TlsTrust | None
    model: str | None
    endpoint: EndpointKind | None
    must_answer: bool
    form: RequestForm
    time_limit: float

    def find_model(self) -> ServedModel:
        """The model behind the first alternative address that answers; errors as of `find_served_model`."""
        deadline = time.monotonic() + self.time_limit
        # Without a model's name the list is needed, and a server that still loads its model may not answer for
        # minutes. With a name, requests to the model itself can take the place of the list.
        timeout = TIMEOUT_SECONDS if self.model else self.time_limit
        errors: list[NoAnswerError] = []
        for address in self.address.alternatives:
            with self._client(address) as client:
                try:
                    with reported_wait("the list of models"):
                        models = list_models(client, deadline, timeout)
                except RedirectedError:
                    raise
                except NoAnswerError as error:
                    errors.append(error)
                    if error.status is None or error.status in UNAUTHORIZED_STATUSES:
                        break
                else:
                    route = self._find_route(client, self.model or _only_model(models, address))
                    return self._served_model(address, models, route)
        return self._find_without_list(errors)

    def _client(self, address: Address) -> Client:
        return Client(address.url, self.headers, self.tls)

    def _find_route(self, client: Client, model: str) -> Route:
        return find_route(client, model, self.endpoint, self.form, self.time_limit)

    def _find_without_list(self, errors: list[NoAnswerError]) -> ServedModel:
        """The named model of a server that lists none, at the first of its addresses that gives a token."""
        worst = min(errors, key=_rank)
        is_absent = (worst.status is None and not worst.is_silent) or worst.status in UNAVAILABLE_STATUSES
        if self.model is None or (self.must_answer and is_absent):
            raise _unlisted_error(self.address, errors, worst, self.headers)
        if worst.status is None and not worst.is_silent:
            return ServedModel(
                self.model, self.endpoint or "completions", is_simulated=False, url=self.address.url, form=self.form
            )
        routes: list[Route] = []
        for address in self.address.alternatives:
            with self._client(address) as client:
                route = self._find_route(client, self.model)
            routes.append(route)
            if route.answer is None and self.must_answer:
                raise _unlisted_error(self.address, errors, worst, self.headers)
            has_api = not {answer.status for answer in route.refusals} <= set(NO_ROUTE_STATUSES)
            if has_api or not route.is_refused:
                return self._served_model(address, None, route)
        return self._served_model(self.address, None, routes[0])

    def _served_model(self, address: Address, models: ModelList | None, route: Route) -> ServedModel:
        """The model behind a route; `models` is None where the server has no list."""
        # an API at the root is named by its endpoint
        url = address.url if address.api_path else replace(address, kind=route.endpoint).url
        model = self.model or (models.names[0] if models else "")
        if models is not None:
            self._check_listed(url, model, models, route)
        if route.is_refused and self.endpoint is None:
            raise _no_token_error(url, route, self.headers, None if self.model else model)
        remarks = route.remarks(self.form)
        is_simulated = models is not None and models.is_simulated
        return ServedModel(model, route.endpoint, is_simulated, url, route.form, remarks)

    def _check_listed(self, url: str, model: str, models: ModelList, route: Route) -> None:
        """Warn of a model that is not listed by its name; EndpointError if the server refuses it too."""
        if not models.includes(model):
            if route.is_refused and {answer.status for answer in route.refusals} <= set(UNKNOWN_MODEL_STATUSES):
                raise EndpointError(
                    f"{url} does not serve '{model}'.",
                    why=f"It serves: {models}. {route.refusals[0].summary}",
                    remedy="Give the name that the server has with --model, or start the server with that model.",
                )
            _warn(f"{url} does not list '{model}', which is asked for all the same. It lists: {models}.")
        elif model not in models.names and f"{model}:latest" not in models.names:
            _warn(f"{url} lists '{model}' only by a pattern, and may accept any name: {models}.")


def _rank(error: NoAnswerError) -> int:
    """How much an error tells of why a server lists no models, beside those of its other addresses; 0 is most."""
    if error.status in UNAUTHORIZED_STATUSES:
        return 0
    if error.status is None or error.status >= 500:
        return 1
    return 2


def _only_model(models: ModelList, address: Address) -> str:
    if len(models.names) == 1 and "*" not in models.names[0]:
        return models.names[0]
    if not models.names:
        raise UsageError(f"{address.url} lists no model.", remedy="Name the model with --model.")
    raise UsageError(
        f"{address.url} serves {pluralize(len(models.names), 'model')}.",
        why=f"They are: {models}.",
        remedy="Choose one with --model.",
    )


def _no_token_error(url: str, route: Route, headers: Mapping[str, str], listed_model: str | None) -> EndpointError:
    """The error for a server that answers on every route, and gives a token on none.

    `listed_model` is the model if its name is from the server's own list, which may be a mere placeholder.
    """
    is_unauthorized = all(answer.status in UNAUTHORIZED_STATUSES for answer in route.refusals)
    usual_remedy = (
        "Look at that server's log. Where it refuses a field, leave that out with --omit, or set it with"
        " --extra-body; --endpoint sends the load all the same."
    )
    is_unavailable = any(answer.status in UNAVAILABLE_STATUSES for answer in route.refusals)
    gateway_remedy = "A server behind it is not there or not ready: look at its log, and start it."
    remedy = gateway_remedy if is_unavailable else usual_remedy
    if is_unauthorized:
        remedy = key_remedy(headers)
    elif listed_model and any(_denies_model(answer, listed_model) for answer in route.refusals):
        remedy = f"It lists '{listed_model}' and does not serve it under that name: name the model with --model."
    return EndpointError(
        f"{url} gives no token, neither on completions nor on chat completions.", why=route.cause, remedy=remedy
    )


def _denies_model(answer: Answer, model: str) -> bool:
    """Whether a server's words are that it has no such model."""
    return (
        answer.status in UNKNOWN_MODEL_STATUSES
        and model in answer.summary
        and re.search(r"\bmodel\b", answer.summary, re.IGNORECASE) is not None
    )


def _redirect_target(address: Address, redirect: RedirectedError, headers: Mapping[str, str]) -> Address:
    """The address of the API that a redirect leads to; EndpointError if it is not followed."""
    location = urlsplit(redirect.location)
    target = f"{location.scheme}://{location.netloc.rpartition('@')[2]}{location.path}"
    target = target.rstrip("/")
    base = target.removesuffix(redirect.path)
    remedy = f"Give the address that it leads to, if that is the server: {base}."
    if location.hostname != address.host or (address.tls and location.scheme != "https"):
        raise EndpointError(
            f"{address.url} redirects to {target}.",
            why="A redirect is followed on the same host alone, because keys and headers are sent along.",
            remedy=remedy,
        )
    if not target.endswith(redirect.path):
        raise EndpointError(
            f"{address.url} redirects {redirect.path} to {target}.",
            why="That is no page of the same API; it may be one to log in.",
            remedy=f"Correct the address. {key_remedy(headers)}",
        )
    query = location.query or address.query
    if base == f"{address.origin}{address.api_path}":
        raise EndpointError(
            f"{address.url} redirects {redirect.path} to {target}, which is the same page.",
            remedy="Give the address of the API's own server, without what redirects.",
        )
    moved = Address.from_url(f"{target}?{query}" if query else target)
    return replace(moved, kind=address.kind)


@cache
def _warn(message: str, url: str = "") -> None:
    """Log a warning, about the server at `url`, once however often that is asked."""
    log.warning(message)


def _warn_of_proxy(address: Address) -> None:
    from urllib.request import proxy_bypass  # an HTTP library, which loads long

    names = ("https_proxy", "HTTPS_PROXY") if address.tls else ("http_proxy", "HTTP_PROXY")
    name = next((name for name in (*names, "all_proxy", "ALL_PROXY") if os.environ.get(name)), None)
    is_local = address.host in ("localhost", "::1") or address.host.startswith("127.")
    if name and not is_local and not proxy_bypass(address.authority):
        _warn(
            f"{name} is set and not used: the server is asked directly, so that no proxy's time is measured. "
            "If only the proxy reaches it, run autotune where the server is."
        )


def _unlisted_error(
    address: Address, errors: list[NoAnswerError], worst: NoAnswerError, headers: Mapping[str, str]
) -> UsageError | EndpointError:
    """The error for a server that does not list its models."""
    url, why = address.url, " ".join(as_sentence(str(error)) for error in errors)
    if worst.is_tls_fault:
        remedy = "Correct the address." if "http://" in str(worst) else TRUST_REMEDY
        return EndpointError(f"No trusted connection to {url}.", why=str(worst), remedy=remedy)
    if worst.status in UNAUTHORIZED_STATUSES:
        return EndpointError(f"{url} refuses to list its models.", why=str(worst), remedy=key_remedy(headers))
    if worst.status is None or worst.status in UNAVAILABLE_STATUSES:
        return EndpointError(
            f"Nothing that serves a model answers at {url}.", why=str(worst), remedy="Start it, or correct the URL."
        )
    if worst.status >= 500:
        no_key_text = "where the server wants an API key, give it with --api-key-env NAME"
        key_text = "some servers fail so with a wrong API key" if sends_key(headers) else no_key_text
        return EndpointError(
            f"{url} fails to list its models.",
            why=str(worst),
            remedy=f"Name the model with --model; {key_text}.",
        )
    remedy = "Name the model with --model, or give the path of the API as its documentation does, such as /v1."
    if sends_key(headers) and worst.status == 400:  # gateways that keep keys in a database they cannot reach
        remedy = f"{key_remedy(headers)} {remedy}"
    return UsageError(f"{url} does not list its models.", why=why, remedy=remedy)
