"""What can be known of a candidate before it is launched: whether its model fits, and what a load would see."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotuner.core import Candidate, LoadPoint
from autotuner.engines import Engine, LaunchContext
from autotuner.engines import model as models
from autotuner.experiment import Experiment
from autotuner.launchers import Launcher, gpus
from autotuner.predict import candidate as form
from autotuner.predict.efficiencies import UNIT_COSTS, CostFactors
from autotuner.predict.local_factors import apply_factors, factors_for
from autotuner.predict.model_on_gpus import ModelOnGpus
from autotuner.predict.predict import Prediction
from autotuner.workload import scenarios


@dataclass(frozen=True)
class Forecaster:
    """The closed form asked about candidates of one experiment; `gpu` is None where their GPU type is unknown.

    Where real engines are measured, predictions carry what was calibrated here for engine and GPU.
    """

    experiment: Experiment
    gpu: str | None
    model_config: str | None
    uses_local_factors: bool = False

    @classmethod
    def from_experiment(cls, experiment: Experiment, engine: Engine, launcher: Launcher) -> Forecaster:
        """What an experiment's candidates would run on here."""
        if engine.source == "simulated":
            return cls(experiment, experiment.simulate.gpu if launcher.starts_servers else None, None)
        config = models.config_file(experiment.model)
        here = launcher.starts_servers and engine.computes_on_gpus(LaunchContext.from_experiment(experiment))
        measures = experiment.optimization.evaluator != "simulated"
        return cls(experiment, _gpu_type(experiment) if here else None, str(config) if config else None, measures)

    def model_on_gpus(self, candidate: Candidate) -> ModelOnGpus | None:
        """The candidate as the closed form sees it; None where it cannot tell."""
        return form.model_on_gpus_for(self.experiment, candidate, self.gpu, self.model_config)

    def memory_shortage(self, candidate: Candidate) -> str | None:
        """Why the candidate's model certainly does not fit, or None."""
        of = self.model_on_gpus(candidate)
        return form.memory_shortage(of, candidate, skewed=self.experiment.simulate.skew.sd > 0) if of else None

    def expects_fit(self, candidate: Candidate) -> bool:
        """Whether the model is expected to fit; true where the closed form cannot tell."""
        of = self.model_on_gpus(candidate)
        return of is None or of.memory_plan.kv_tokens > 0

    def predict(self, candidate: Candidate, point: LoadPoint, costs: CostFactors = UNIT_COSTS) -> Prediction | None:
        """The closed form's answer for one load point, with operators of these costs; None where it has none."""
        of = self.model_on_gpus(candidate)
        if of is None:
            return None
        if costs != UNIT_COSTS:
            of = replace(of, costs=costs)
        scenario = scenarios.parse(point.scenario)
        prompt, output = scenario.mean_lengths
        prefix = 0 if candidate.parameters.get("prefix-caching") is False else scenario.prefix_tokens
        found = form.predict_load_point(of, point, prompt_tokens=prompt, output_tokens=output, prefix_tokens=prefix)
        factors = factors_for(of.engine, of.gpu.name) if self.uses_local_factors else None
        if found is None or factors is None:
            return found
        one = LoadPoint(point.scenario, concurrency=of.layout.dp)
        alone = form.predict_load_point(of, one, prompt_tokens=prompt, output_tokens=output, prefix_tokens=prefix)
        return apply_factors(found, alone, factors) if alone else found


def _gpu_type(experiment: Experiment) -> str | None:
    """The type the experiment names, else that of this machine's GPUs; None where they differ."""
    hardware = experiment.hardware
    if hardware.gpu_type:
        return hardware.gpu_type
    names = {gpu.name for gpu in gpus.query_inventory() if not hardware.gpus or gpu.index in hardware.gpus}
    return names.pop() if len(names) == 1 else None
