"""Documents of OME: the InferenceService of a server, and a ServingRuntime where none fits."""

from autotuner.deploy.ome.documents import ContainerCommand, inference_service, ome_documents, serving_runtime

__all__ = ["ContainerCommand", "inference_service", "ome_documents", "serving_runtime"]
