"""Which models a running server serves, and whether it is the simulated engine."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from autotuner.endpoints.client import Client, NoAnswerError
from autotuner.endpoints.route import TIMEOUT_SECONDS, choose_route
from autotuner.endpoints.token import request_token
from autotuner.errors import EndpointError, UsageError, pluralize
from autotuner.workload.prompts import EndpointKind

log = logging.getLogger(__name__)

SIMULATOR_OWNER = "autotune-sim"
"""The `owned_by` of models that the simulated engine lists."""

UNAUTHORIZED_STATUSES = (401, 403)

UNKNOWN_MODEL_STATUSES = (400, 404, 422)
"""What servers answer to a request for a model that they do not serve."""


@dataclass(frozen=True)
class ModelList:
    """The names of the models that a server lists, and whether it is the simulated engine."""

    names: tuple[str, ...]
    is_simulated: bool = False

    def __str__(self) -> str:
        return ", ".join(self.names) or "nothing"

    def includes(self, model: str) -> bool:
        """Whether a model is listed, by its name or by a wildcard such as `openai/*`."""
        return any(fnmatchcase(model, name.replace("[", "[[]")) for name in self.names)


@dataclass(frozen=True)
class ServedModel:
    """The model as the server names it, and the API route that load is sent to."""

    model: str
    endpoint: EndpointKind
    is_simulated: bool


def model_cards(client: Client) -> list[dict[str, Any]]:
    """What the server says about each model, its "id" and more; NoAnswerError when it lists none."""
    answer = client.ask("/v1/models")
    answer.require_ok()
    try:
        return [{**card, "id": str(card["id"])} for card in answer.json()["data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise NoAnswerError("/v1/models did not answer with a list of models.", answer.status) from error


def list_models(client: Client) -> ModelList:
    """The models that the server lists; NoAnswerError when it does not."""
    cards = model_cards(client)
    is_simulated = any(card.get("owned_by") == SIMULATOR_OWNER for card in cards)
    return ModelList(tuple(card["id"] for card in cards), is_simulated)


def find_served_model(
    url: str,
    headers: Mapping[str, str],
    *,
    model: str | None = None,
    endpoint: EndpointKind | None = None,
    must_answer: bool = False,
) -> ServedModel:
    """Ask a server which model it serves, and choose the API route unless `endpoint` is given.

    With `model` given, no error is raised for a server that does not answer, unless it `must_answer`: the load
    test reports it. Nor need it list that model, as long as it does not refuse it: lists may be empty, or one page.
    UsageError when no model is given and the server lists several or none; EndpointError when it
    does not answer, refuses, or serves other models.
    """
    with Client(url, headers) as client:
        try:
            models = list_models(client)
        except NoAnswerError as error:
            if model is None or (must_answer and (error.status is None or error.status >= 500)):
                raise _unlisted_error(url, error) from error
            if error.status is None:
                return ServedModel(model, endpoint or "completions", is_simulated=False)
            models = ModelList(("*",))
        name = model or _only_model(models, url)
        endpoint = endpoint or choose_route(client, name)
        if not models.includes(name):
            _require_not_refused(client, url, models, name, endpoint)
        return ServedModel(name, endpoint, models.is_simulated)


def _only_model(models: ModelList, url: str) -> str:
    if len(models.names) == 1 and "*" not in models.names[0]:
        return models.names[0]
    what = f"{url} serves {pluralize(len(models.names), 'model')}." if models.names else f"{url} lists no model."
    raise UsageError(what, why=f"They are: {models}." if models.names else "", remedy="Choose one with --model.")


def _require_not_refused(client: Client, url: str, models: ModelList, model: str, endpoint: EndpointKind) -> None:
    """EndpointError when the server refuses a model that it does not list; a warning when it does not refuse it."""
    try:
        answer = request_token(client, model, endpoint, TIMEOUT_SECONDS)
    except NoAnswerError:
        answer = None
    if answer is not None and answer.status in UNKNOWN_MODEL_STATUSES:
        raise EndpointError(
            f"{url} does not serve '{model}'.",
            why=f"It serves: {models}. {answer.summary}",
            remedy="Give the name that the server has with --model, or start the server with that model.",
        )
    _warn(f"{url} does not list '{model}', which is asked for all the same. It lists: {models}.")


@cache
def _warn(message: str) -> None:
    """Log a warning, once however often the server is asked."""
    log.warning(message)


def _unlisted_error(url: str, error: NoAnswerError) -> UsageError | EndpointError:
    """The error for a server that does not list its models."""
    if error.status in UNAUTHORIZED_STATUSES:
        return EndpointError(
            f"{url} refuses to list its models.",
            why=str(error),
            remedy="Give its API key with --api-key-env NAME, or the header it requires.",
        )
    if error.status is None or error.status >= 500:
        return EndpointError(
            f"Nothing that serves a model answers at {url}.", why=str(error), remedy="Start it, or correct the URL."
        )
    return UsageError(f"{url} does not list its models.", why=str(error), remedy="Name the model with --model.")
