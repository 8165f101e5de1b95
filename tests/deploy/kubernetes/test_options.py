import pytest

from autotuner.config import compose
from autotuner.config.context import TaskContext
from autotuner.deploy.kubernetes import ClusterOptions
from autotuner.errors import ConfigError
from autotuner.kubernetes_values import ModelVolume, Toleration
from autotuner.redaction import redact


def composed(**deployment):
    overrides = {"runtime": {"image": "x:1"}, "deployment": deployment}
    return compose(
        TaskContext(model_name="m", base_runtime="vllm", deployment_mode="kubernetes", user_overrides=overrides)
    )


def test_the_settings_of_a_deployment_become_its_options():
    composition = composed(
        namespace="bench",
        secret_name="tokens-of-the-hub",
        image_pull_secret="registry-login",
        model_volume="models:llama",
        node_selector={"nvidia.com/gpu.product": "NVIDIA-H200"},
        tolerations=["spot:NoSchedule"],
        queue_timeout=60,
        share_nodes=True,
    )
    assert ClusterOptions.from_deployment(composition.experiment.deployment) == ClusterOptions(
        namespace="bench",
        secret="tokens-of-the-hub",
        image_pull_secret="registry-login",
        model_volume=ModelVolume("models", "llama"),
        node_selector={"nvidia.com/gpu.product": "NVIDIA-H200"},
        tolerations=(Toleration("spot", effect="NoSchedule"),),
        queue_timeout=60.0,
        share_nodes=True,
    )
    assert composition.origin("deployment.node_selector.nvidia.com/gpu.product") == "the caller"


def test_names_of_secrets_are_no_secrets():
    composition = composed(secret_name="tokens-of-the-hub", image_pull_secret="registry-login")
    again = compose(TaskContext(user_overrides=composition.experiment.model_dump(mode="json"), override_mode="replace"))
    assert again.experiment.deployment == composition.experiment.deployment
    assert redact("tokens-of-the-hub registry-login") == "tokens-of-the-hub registry-login"


def test_without_settings_the_options_are_the_defaults():
    assert ClusterOptions.from_deployment(composed().experiment.deployment) == ClusterOptions()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"namespace": "Bench"}, "no name of a Kubernetes object"),
        ({"tolerations": ["spot:Never"]}, "none of the effects NoSchedule"),
        ({"node_selector": {"a b": "x"}}, "no key of a label"),
        ({"model_volume": "hostPath:models"}, "a folder of the nodes"),
        ({"gpu_resource": "a b"}, "no key of a label"),
        ({"queue_timeout": 0}, "greater than 0"),
        ({"namespce": "bench"}, "did you mean 'namespace'"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_with_its_key(settings, text):
    with pytest.raises(ConfigError) as caught:
        composed(**settings)
    assert f"deployment.{next(iter(settings))}" in str(caught.value) or "namespce" in str(caught.value)
    assert text in f"{caught.value} {caught.value.why}"
