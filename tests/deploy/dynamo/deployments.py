"""A small profile and deployments that the tests of Dynamo's documents share."""

from __future__ import annotations

from typing import Any

from autotuner.deploy.dynamo import DynamoDeployment, Images, ProfileData, Workers, planner_settings

MODEL = "org/model"

PREFILL: dict[str, list[float]] = {
    "prefill_isl": [100, 1000, 2000, 4000],
    "prefill_ttft": [20.0, 40.0, 60.0, 100.0],
    "prefill_thpt_per_gpu": [5000.0, 25000.0, 33333.3, 40000.0],
}
DECODE: dict[str, Any] = {
    "x_kv_usage": [0.1, 0.5, 0.1, 0.5],
    "y_context_length": [350.0, 350.0, 2997.0, 2997.0],
    "z_itl": [5.0, 9.0, 6.0, 12.0],
    "z_thpt_per_gpu": [2000.0, 5000.0, 1500.0, 3000.0],
    "max_kv_tokens": 945029,
}
PROFILE = ProfileData(PREFILL, DECODE)


def deployment(**changes: Any) -> DynamoDeployment:
    """Two prefill workers of one GPU and three decode workers of four, with a planner."""
    backend, release = changes.get("backend", "vllm"), changes.get("release", "1.6.1")
    fields: dict[str, Any] = {
        "name": "chat",
        "backend": backend,
        "model": MODEL,
        "decode": Workers(("--tensor-parallel-size", "4"), gpus=4, replicas=3),
        "prefill": Workers(replicas=2),
        "images": Images.of_release(backend, release),
        "planner": planner_settings(
            release, backend=backend, model=MODEL, ttft_ms=200.0, itl_ms=20.0, prefill_gpus=1, decode_gpus=4
        ),
        "profile": PROFILE,
        "release": release,
        "api_version": "v1beta1" if release == "1.6.1" else "v1alpha1",
    }
    return DynamoDeployment(**(fields | changes))
