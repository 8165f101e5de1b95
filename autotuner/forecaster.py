"""What can be known of a candidate before it is launched: whether its model fits, and what a load would see."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotuner.core import Candidate, LoadPoint
from autotuner.engines import Engine, Target
from autotuner.engines import model as models
from autotuner.experiment import Experiment
from autotuner.launchers import Launcher, gpus
from autotuner.predict import candidate as form
from autotuner.predict.efficiencies import AS_FITTED, Costs
from autotuner.predict.local_factors import corrected, factors_for
from autotuner.predict.model_on_gpus import Deployment
from autotuner.predict.predict import Prediction
from autotuner.workload import scenarios


@dataclass(frozen=True)
class Foresight:
    """The closed form asked about candidates of one experiment; `gpu` is None where their GPU type is unknown.

    Where real engines are measured, predictions carry what was calibrated here for engine and GPU.
    """

    experiment: Experiment
    gpu: str | None
    model: str | None
    measures: bool = False

    @classmethod
    def of(cls, experiment: Experiment, engine: Engine, launcher: Launcher) -> Foresight:
        """What an experiment's candidates would run on here."""
        if engine.source == "simulated":
            return cls(experiment, experiment.simulate.gpu if launcher.starts_servers else None, None)
        config = models.config_file(experiment.model)
        here = launcher.starts_servers and engine.computes_on_gpus(Target.of(experiment))
        measures = experiment.optimization.evaluator != "simulated"
        return cls(experiment, _gpu_type(experiment) if here else None, str(config) if config else None, measures)

    def deployment(self, candidate: Candidate) -> Deployment | None:
        """The candidate as the closed form sees it; None where it cannot tell."""
        return form.deployment_of(self.experiment, candidate, self.gpu, self.model)

    def refuse(self, candidate: Candidate) -> str | None:
        """Why the candidate's model certainly does not fit, or None."""
        of = self.deployment(candidate)
        return form.shortage(of, candidate, skewed=self.experiment.simulate.skew.sd > 0) if of else None

    def holds(self, candidate: Candidate) -> bool:
        """Whether the model is expected to fit; true where the closed form cannot tell."""
        of = self.deployment(candidate)
        return of is None or of.plan.kv_tokens > 0

    def predict(self, candidate: Candidate, point: LoadPoint, costs: Costs = AS_FITTED) -> Prediction | None:
        """The closed form's answer for one load point, with operators of these costs; None where it has none."""
        of = self.deployment(candidate)
        if of is None:
            return None
        if costs != AS_FITTED:
            of = replace(of, costs=costs)
        scenario = scenarios.parse(point.scenario)
        prompt, output = scenario.mean
        prefix = 0 if candidate.parameters.get("prefix-caching") is False else scenario.prefix
        found = form.predicted(of, point, prompt=prompt, output=output, prefix=prefix)
        factors = factors_for(of.engine, of.gpu.name) if self.measures else None
        if found is None or factors is None:
            return found
        one = LoadPoint(point.scenario, concurrency=of.layout.dp)
        alone = form.predicted(of, one, prompt=prompt, output=output, prefix=prefix)
        return corrected(found, alone, factors) if alone else found


def _gpu_type(experiment: Experiment) -> str | None:
    """The type the experiment names, else that of this machine's GPUs; None where they differ."""
    hardware = experiment.hardware
    if hardware.gpu_type:
        return hardware.gpu_type
    names = {gpu.name for gpu in gpus.inventory() if not hardware.gpus or gpu.index in hardware.gpus}
    return names.pop() if len(names) == 1 else None
