"""Which options of a cluster go with which deployment."""

import pytest

from autotuner.cli.cluster_options import RunClusterOptionSet, reject_cluster_options
from autotuner.errors import UsageError


def test_an_executor_takes_trials_elsewhere_whatever_their_deployment():
    options = RunClusterOptionSet(executor="slurm", ray_address="127.0.0.1:6379")
    assert options.deployment_settings() == {"executor": "slurm", "ray.address": "127.0.0.1:6379"}
    reject_cluster_options(options, "process")


@pytest.mark.parametrize("mode", ["process", "docker", "external"])
def test_options_of_kubernetes_are_refused_where_nothing_looks_at_them(mode):
    options = RunClusterOptionSet(namespace="x", queue_timeout=5.0)
    with pytest.raises(UsageError, match="--namespace and --queue-timeout cannot be used here"):
        reject_cluster_options(options, mode)
    reject_cluster_options(options, "kubernetes")
