"""Documents of NVIDIA Dynamo: deployments with their planner, mocker twins, and the requests that ask for them."""

from autotuner.deploy.documents import to_yaml
from autotuner.deploy.dynamo.deployment import DynamoDeployment, Images, ModelCache, ProfileData, Workers
from autotuner.deploy.dynamo.files import (
    deployment_documents,
    deployment_files,
    mocker_documents,
    output_config_map,
    profile_config_map,
)
from autotuner.deploy.dynamo.planner import check_planner_settings, planner_settings
from autotuner.deploy.dynamo.request import DynamoRequest, read_request

__all__ = [
    "DynamoDeployment",
    "DynamoRequest",
    "Images",
    "ModelCache",
    "ProfileData",
    "Workers",
    "check_planner_settings",
    "deployment_documents",
    "deployment_files",
    "mocker_documents",
    "output_config_map",
    "planner_settings",
    "profile_config_map",
    "read_request",
    "to_yaml",
]
