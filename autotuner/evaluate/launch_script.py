"""How a launch is shown: the form of its command, and a remark where it was not measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from autotuner.core import Candidate, ServerSpec, Source
from autotuner.deploy import render, with_comment
from autotuner.engines.deployment import Pool, disaggregated, replicated
from autotuner.engines.protocol import LaunchContext
from autotuner.engines.sim import Sim
from autotuner.evaluate.simulated import simulated_gpu
from autotuner.experiment import Experiment
from autotuner.model_files import is_path
from autotuner.predict.shape import catalogue
from autotuner.serving import RoleName, ServingSpec


def launch_script(experiment: Experiment, source: Source) -> Callable[[ServerSpec], str]:
    """Renders a server as the command that launches it, with a remark unless it was measured."""
    form, remark = launch_form(experiment), simulation_remark(experiment, source)
    return lambda spec: with_comment(render(spec, form), remark)


def launch_form(experiment: Experiment) -> str:
    """The format of the launch commands that start the experiment's servers."""
    return "docker" if experiment.deployment.uses_image and experiment.runtime.image else "shell"


def several_servers(
    experiment: Experiment, candidate: Candidate, counts: Mapping[RoleName, int], format: str, port: int
) -> ServingSpec:
    """Servers of a candidate on one host behind a router on `port`: replicas, or prefill and decode servers.

    UsageError or ConfigError if the engine has no such form.
    """
    context = LaunchContext.from_experiment(experiment, port, print_only=True)
    context = replace(context, container=format != "shell")
    gpus = experiment.hardware.gpus
    if "server" in counts:
        return replicated(Pool(candidate, counts["server"]), context, gpus=gpus)
    return disaggregated(Pool(candidate, counts["prefill"]), Pool(candidate, counts["decode"]), context, gpus=gpus)


def simulation_remark(experiment: Experiment, source: Source) -> str:
    """The remark on a printed command whose server was simulated and not measured; empty if it was measured."""
    if source == "measured":
        return ""
    gpu_remark = f"simulated on {simulated_gpu(experiment)}"
    if experiment.base_runtime == Sim.name:
        return f"Not measured: {gpu_remark}; this starts the simulated engine."
    remark = f"Not measured: {gpu_remark}; this is what would be started."
    model = experiment.model.id_or_path
    if model not in catalogue() or is_path(model):
        return remark
    return f"{remark}\n{model} is a name for predictions: give the engine the model's folder or Hugging Face id."
