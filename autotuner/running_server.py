"""What a server that is already running serves and takes, as part of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autotuner.config import Overrides, TaskContext, compose, leaves, merge, resolved_context
from autotuner.endpoints.address import Address
from autotuner.endpoints.headers import request_headers, tls_trust
from autotuner.endpoints.models import ServedModel, find_served_model
from autotuner.endpoints.patience import FIRST_TOKEN_SECONDS
from autotuner.experiment import Experiment, Model
from autotuner.workload.prompts import EndpointKind

PLACEHOLDER_MODEL = "model"
"""The model's name until the server reports the real one."""


def served_at_url(experiment: Experiment, *, model: str | None, endpoint: EndpointKind | None) -> ServedModel:
    """What the server at the experiment's URL serves; `model` and `endpoint` are checked where they are named."""
    deployment, benchmark = experiment.deployment, experiment.benchmark
    return find_served_model(
        deployment.url or "",
        request_headers(deployment),
        model=model,
        endpoint=endpoint,
        form=benchmark.request_form,
        tls=tls_trust(deployment),
        time_limit=min(FIRST_TOKEN_SECONDS, benchmark.request_timeout),
    )


def with_server_identity(experiment: Experiment, served: ServedModel) -> Experiment:
    """The experiment with the model, endpoint, request form and address that the server turned out to have."""
    update = {"endpoint": served.endpoint, "model_name": served.model, **_form_fields(served)}
    return experiment.model_copy(
        update={
            "model": Model(id_or_path=served.model),
            "benchmark": experiment.benchmark.model_copy(update=update),
            "deployment": experiment.deployment.model_copy(update={"url": served.url}),
        }
    )


def with_served_model(context: TaskContext) -> TaskContext:
    """Add the model and the endpoint of a running server to `context`, unless it names them.

    Names in `context` are checked against the server. Errors are those of `find_served_model`.
    """
    model = resolved_context(context).model_name
    composition = compose(context if model else replace(context, model_name=PLACEHOLDER_MODEL))
    experiment = composition.experiment
    deployment, served_name = experiment.deployment, experiment.model.served_name or model
    if deployment.url is None or experiment.optimization.evaluator != "measured":
        return replace(context, model_name=model or PLACEHOLDER_MODEL)
    named_endpoint = experiment.benchmark.endpoint if "benchmark.endpoint" in composition.provenance else None
    served = served_at_url(experiment, model=served_name, endpoint=named_endpoint)
    detected = _detected(experiment, served)
    if detected:
        overrides = _with_detected(context.user_overrides or {}, detected, deployment.url)
        context = replace(context, user_overrides=overrides)
    return context if model else replace(context, model_name=served.model)


def _detected(experiment: Experiment, served: ServedModel) -> dict[str, Any]:
    """The overrides with which requests are as the server takes them; empty if it takes the usual ones."""
    benchmark = experiment.benchmark
    accepted = {"endpoint": served.endpoint, **_form_fields(served)}
    changed = {name: value for name, value in accepted.items() if value != getattr(benchmark, name)}
    changed = {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}
    is_moved = Address.from_url(experiment.deployment.url or served.url) != Address.from_url(served.url)
    sections = {"benchmark": changed, "deployment": {"url": served.url} if is_moved else {}}
    return {name: section for name, section in sections.items() if section}


def _form_fields(served: ServedModel) -> dict[str, Any]:
    form = served.form
    return {"prompts": form.prompts, "length_field": form.length_field, "omit": form.omit}


def _with_detected(overrides: Mapping[str, Any], detected: Mapping[str, Any], url: str) -> Overrides:
    places: Mapping[str, str] = getattr(overrides, "places", {})
    detected_places = dict.fromkeys(leaves(detected), f"detected at {url}")
    return Overrides(merge(overrides, detected), {**places, **detected_places})
