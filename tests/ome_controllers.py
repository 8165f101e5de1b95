"""A stand-in for OME's controller on the small API server: it makes a pod of an InferenceService, or complains.

It does what OME's documentation says of one server: command, arguments and variables from the runner, the model's
path as a variable, the labels of its pods. It is not OME, and merges no runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.clusters import FakeCluster

Controller = Callable[[FakeCluster, dict[str, Any]], None]


def makes_pod(model_path: str) -> Controller:
    """A controller whose models are in this folder."""

    def control(cluster: FakeCluster, service: dict[str, Any]) -> None:
        name, engine = service["metadata"]["name"], service["spec"]["engine"]
        runner = engine["runner"]
        variables = [*runner.get("env", ()), {"name": "MODEL_PATH", "value": model_path}]
        sidecar = {"name": "a-sidecar", "image": "sidecar:1"}
        labels = {**engine.get("labels", {}), "ome.io/inferenceservice": name, "component": "engine"}
        cluster.start_pod(f"{name}-engine", labels, {"containers": [{**runner, "env": variables}, sidecar]})

    return control


def complains(reason: str, message: str, *, kind: str = "InferenceService", suffix: str = "") -> Controller:
    """A controller that writes an event, and makes no pod."""

    def control(cluster: FakeCluster, service: dict[str, Any]) -> None:
        cluster.add_event(kind, service["metadata"]["name"] + suffix, reason, message)

    return control
