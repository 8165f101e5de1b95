"""What this machine decides where neither the caller nor a layer does."""

import pytest

from autotuner.config import ConfigLayer, TaskConfigFactory, TaskContext, compose


class Machine:
    """A machine with a Docker daemon and four H100s, which records the questions."""

    def __init__(self):
        self.questions = []

    def deployment(self, runtime, executable):
        self.questions.append((runtime, executable))
        if runtime == "sim":
            return None
        return ("process", "it is here") if executable else ("docker", "a daemon answers")

    def gpus(self, runtime, deployment, indexes):
        self.questions.append((runtime, deployment, tuple(indexes)))
        return (None, None) if runtime == "sim" or deployment == "external" else ("H100", len(indexes) or 4)


def on(machine, **more):
    return compose(TaskContext(**{"model_name": "m", "base_runtime": "vllm", "machine": machine, **more}))


def registered(**data):
    TaskConfigFactory.register_profile("mine", [ConfigLayer("params", data)])
    return {"profiles": ["mine"]}


def test_a_real_engine_without_a_deployment_runs_where_the_machine_says_and_the_reason_is_told():
    composed = on(Machine())
    assert composed.experiment.deployment.mode == "docker"
    assert "docker-defaults" in composed.layers
    assert composed.experiment.runtime.image == "vllm/vllm-openai:v0.32.0"
    assert composed.reasons["deployment.mode"] == "a daemon answers"
    assert composed.notes == ["deployment docker: a daemon answers"]


@pytest.mark.parametrize(
    ("more", "mode"),
    [
        ({"deployment_mode": "process"}, "process"),
        ({"user_overrides": {"deployment": {"mode": "process"}}}, "process"),
        ({"base_runtime": "sim"}, "process"),
        ({"base_runtime": None}, "process"),
        ({"deployment_mode": "external", "user_overrides": {"deployment": {"url": "http://x"}}}, "external"),
    ],
)
def test_the_machine_decides_nothing_that_is_said_or_simulated(more, mode):
    composed = on(Machine(), **more)
    assert composed.experiment.deployment.mode == mode
    assert "deployment.mode" not in composed.reasons
    assert composed.notes == []


def test_a_profile_that_names_the_deployment_is_not_asked_about():
    composed = on(Machine(), **registered(deployment={"mode": "process"}))
    assert composed.experiment.deployment.mode == "process"
    assert composed.notes == []


def test_an_engine_that_only_a_profile_names_is_decided_for_too():
    composed = on(Machine(), base_runtime=None, **registered(base_runtime="sglang"))
    assert composed.experiment.deployment.mode == "docker"
    assert "sglang-defaults" in composed.layers
    assert composed.experiment.hardware.gpu_type == "H100"


def test_the_machine_is_told_of_an_executable_and_of_the_gpus_that_may_be_used():
    machine = Machine()
    composed = on(machine, user_overrides={"runtime": {"executable": "/opt/vllm"}, "hardware": {"gpus": [1, 3]}})
    assert ("vllm", "/opt/vllm") in machine.questions
    assert ("vllm", "process", (1, 3)) in machine.questions
    assert composed.experiment.hardware.total_gpus == 2
    assert composed.notes == ["deployment process: it is here"]


def test_gpus_that_anybody_names_beat_those_of_the_machine_without_a_word():
    preset = on(Machine(), layers=["a100"])
    assert preset.experiment.hardware.gpu_type == "A100"
    assert preset.experiment.hardware.total_gpus == 4
    assert preset.warnings == []
    caller = on(Machine(), gpu_type="H20", total_gpus=1)
    assert (caller.experiment.hardware.gpu_type, caller.experiment.hardware.total_gpus) == ("H20", 1)
    assert caller.reasons.keys() == {"deployment.mode"}


def test_a_whole_override_says_where_it_runs():
    whole = {
        "task_name": "t",
        "model": {"id_or_path": "m"},
        "base_runtime": "vllm",
        "parameters": {"tp-size": [1]},
        "benchmark": {"traffic_scenarios": ["D(1,2)"], "num_concurrency": [1]},
    }
    composed = on(Machine(), override_mode="replace", user_overrides=whole)
    assert composed.experiment.deployment.mode == "process"
    assert composed.notes == []


def test_without_a_machine_the_layers_are_those_of_a_process():
    assert compose(TaskContext(model_name="m", base_runtime="vllm")).layers == [
        "base-model",
        "base-optimization",
        "process-defaults",
        "vllm-defaults",
    ]
