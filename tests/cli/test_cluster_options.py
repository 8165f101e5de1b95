"""Which options of a cluster go with which deployment."""

import pytest

from autotuner.cli.cluster_options import RunClusterOptionSet, reject_cluster_options
from autotuner.errors import UsageError
from autotuner.experiment import Deployment


def test_an_executor_takes_trials_elsewhere_whatever_their_deployment():
    options = RunClusterOptionSet(executor="ray", ray_address="127.0.0.1:6379")
    assert options.deployment_settings() == {"executor": "ray", "ray.address": "127.0.0.1:6379"}
    reject_cluster_options(options, Deployment(executor="ray"))
    options = RunClusterOptionSet(executor="slurm", partition="gpu", time_limit="60")
    reject_cluster_options(options, Deployment(executor="slurm"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (RunClusterOptionSet(partition="gpu", time_limit="60"), "--partition and --time-limit cannot be used here"),
        (RunClusterOptionSet(executor="slurm", ray_address="127.0.0.1:6379"), "--ray-address cannot be used here"),
    ],
)
def test_options_of_an_executor_are_refused_where_another_runs_the_trials(options, words):
    with pytest.raises(UsageError, match=words):
        reject_cluster_options(options, Deployment(executor=options.executor or "local"))


@pytest.mark.parametrize("mode", ["process", "docker", "external"])
def test_options_of_kubernetes_are_refused_where_nothing_looks_at_them(mode):
    options = RunClusterOptionSet(namespace="x", queue_timeout=5.0)
    with pytest.raises(UsageError, match="--namespace and --queue-timeout cannot be used here"):
        reject_cluster_options(options, Deployment(mode=mode))
    reject_cluster_options(options, Deployment(mode="kubernetes"))
