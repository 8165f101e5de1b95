"""Which models a running server serves, and whether it is the simulated engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autotuner.endpoints.client import Client, NoAnswerError
from autotuner.endpoints.route import choose_route
from autotuner.errors import EndpointError, UsageError
from autotuner.workload.prompts import EndpointKind

SIMULATOR_OWNER = "autotune-sim"
"""The `owned_by` of models that the simulated engine lists."""

UNAUTHORIZED_STATUSES = (401, 403)


@dataclass(frozen=True)
class ModelList:
    """The names of the models that a server lists, and whether it is the simulated engine."""

    names: tuple[str, ...]
    is_simulated: bool = False

    def __str__(self) -> str:
        return ", ".join(self.names) or "nothing"


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
        return [{**card, "id": str(card["id"])} for card in json.loads(answer.text)["data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise NoAnswerError("/v1/models did not answer with a list of models.", answer.status) from error


def list_models(client: Client) -> ModelList:
    """The models that the server lists; NoAnswerError when it does not."""
    cards = model_cards(client)
    is_simulated = any(card.get("owned_by") == SIMULATOR_OWNER for card in cards)
    return ModelList(tuple(card["id"] for card in cards), is_simulated)


def find_served_model(
    url: str, headers: Mapping[str, str], *, model: str | None = None, endpoint: EndpointKind | None = None
) -> ServedModel:
    """Ask a server which model it serves, and choose the API route unless `endpoint` is given.

    With `model` given, no error is raised for a server that does not answer: the load test reports it.
    UsageError when no model is given and the server lists several or none; EndpointError when it
    does not answer, refuses, or serves other models.
    """
    with Client(url, headers) as client:
        try:
            models = list_models(client)
        except NoAnswerError as error:
            if model is None:
                raise unlisted_error(url, error) from error
            models = ModelList((model,))
            if error.status is None:
                endpoint = endpoint or "completions"
        name = _choose_model(models, url, model)
        return ServedModel(name, endpoint or choose_route(client, name), models.is_simulated)


def _choose_model(models: ModelList, url: str, model: str | None) -> str:
    """`model` if the server lists it, without `model` the only one it lists; else an error."""
    if model is None:
        if len(models.names) == 1:
            return models.names[0]
        what = f"{url} serves {len(models.names)} models." if models.names else f"{url} lists no model."
        raise UsageError(what, why=f"They are: {models}." if models.names else "", remedy="Choose one with --model.")
    if model not in models.names:
        raise EndpointError(
            f"{url} does not serve '{model}'.",
            why=f"It serves: {models}.",
            remedy="Give the name that the server has with --model, or start the server with that model.",
        )
    return model


def unlisted_error(url: str, error: NoAnswerError) -> UsageError | EndpointError:
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
