"""What a server that is already running serves and takes, as part of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autotuner.config import Composition, Overrides, TaskContext, compose, leaves, merge, resolved_context
from autotuner.endpoints.address import Address
from autotuner.endpoints.headers import request_headers, tls_trust
from autotuner.endpoints.models import ServedModel, find_served_model
from autotuner.endpoints.patience import FIRST_TOKEN_SECONDS
from autotuner.experiment import Experiment

PLACEHOLDER_MODEL = "model"
"""The model's name until the server reports the real one."""


def detect_server(context: TaskContext, composition: Composition) -> tuple[TaskContext, ServedModel]:
    """What serves at the URL of a composed `context`, and the context with its model, endpoint, form and address.

    Names in `context` are checked against the server. Errors are those of `find_served_model`.
    """
    experiment = composition.experiment
    deployment, benchmark = experiment.deployment, experiment.benchmark
    model, url = resolved_context(context).model_name, deployment.url or ""
    if model == PLACEHOLDER_MODEL:
        model = None
    served = find_served_model(
        url,
        request_headers(deployment),
        model=experiment.model.served_name or model,
        endpoint=benchmark.endpoint if "benchmark.endpoint" in composition.provenance else None,
        form=benchmark.request_form,
        tls=tls_trust(deployment),
        time_limit=min(FIRST_TOKEN_SECONDS, benchmark.request_timeout),
    )
    if detected := _detected(experiment, served):
        context = replace(context, user_overrides=_with_detected(context.user_overrides or {}, detected, url))
    return replace(context, model_name=model or served.model), served


def with_served_model(context: TaskContext) -> TaskContext:
    """Add the model and the endpoint of a running server to `context`, unless it names them; see `detect_server`."""
    context = replace(context, model_name=resolved_context(context).model_name or PLACEHOLDER_MODEL)
    composition = compose(context)
    if composition.experiment.deployment.url is None or composition.experiment.optimization.evaluator != "measured":
        return context
    return detect_server(context, composition)[0]


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
