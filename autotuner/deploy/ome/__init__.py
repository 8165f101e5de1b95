"""Documents of OME: the InferenceService of a server, and a ServingRuntime where none fits."""

from autotuner.deploy.ome.documents import (
    API_VERSION,
    CONTAINER,
    MODEL_PATH,
    ContainerCommand,
    base_model_name,
    inference_service,
    ome_documents,
    serving_runtime,
)

__all__ = [
    "API_VERSION",
    "CONTAINER",
    "MODEL_PATH",
    "ContainerCommand",
    "base_model_name",
    "inference_service",
    "ome_documents",
    "serving_runtime",
]
