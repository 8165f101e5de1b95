"""The evaluator of an experiment: measured on real servers, or simulated in virtual time."""

from __future__ import annotations

from autotuner.core import Observer
from autotuner.engines import engine
from autotuner.evaluate.external import ExternalEvaluator
from autotuner.evaluate.launch_script import launch_script
from autotuner.evaluate.measured import MeasuredEvaluator
from autotuner.evaluate.protocol import Evaluator
from autotuner.evaluate.simulated import SimulatedEvaluator
from autotuner.experiment import Experiment
from autotuner.launchers import launcher


def create_evaluator(experiment: Experiment, observe: Observer) -> Evaluator:
    """Create the evaluator that the experiment names, which reports progress to `observe`."""
    runtime_engine = engine(experiment.base_runtime)
    if experiment.optimization.evaluator == "simulated":
        script = launch_script(experiment, "simulated")
        return SimulatedEvaluator(experiment, runtime_engine, observe, render=script)
    time_limit = experiment.runtime.start_timeout + experiment.optimization.timeout_per_iteration
    mode_launcher = launcher(experiment.deployment.mode, experiment.deployment, time_limit)
    if not mode_launcher.starts_servers:
        return ExternalEvaluator(experiment, observe)
    script = launch_script(experiment, "measured")
    return MeasuredEvaluator(experiment, runtime_engine, mode_launcher, script, observe)
