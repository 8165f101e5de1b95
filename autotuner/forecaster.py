"""Forecasts for candidates before they are launched: whether their model fits, and the figures of a load point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autotuner import model_files
from autotuner.core import Candidate, LoadPoint
from autotuner.engines import Engine, LaunchContext
from autotuner.experiment import Experiment
from autotuner.launchers import Launcher, gpus
from autotuner.predict import candidate as predictor
from autotuner.predict.efficiencies import UNIT_COSTS, CostFactors
from autotuner.predict.local_ratios import Correction, ratios_for
from autotuner.predict.model_on_gpus import ModelOnGpus
from autotuner.predict.predict import Prediction
from autotuner.predict.traffic import Traffic
from autotuner.workload import scenarios


@dataclass(frozen=True)
class Forecaster:
    """Predictions for the candidates of one experiment; `gpu` is None where their GPU type is unknown.

    With `uses_calibration`, where real engines are measured, predictions are corrected by what was
    calibrated on this machine for their model, engine and GPU type.
    """

    experiment: Experiment
    gpu: str | None
    model_config: str | None
    uses_calibration: bool = False

    @classmethod
    def from_experiment(cls, experiment: Experiment, engine: Engine, launcher: Launcher) -> Forecaster:
        """The forecaster for the GPUs that the experiment's candidates would run on."""
        if engine.source == "simulated":
            return cls(experiment, experiment.simulate.gpu if launcher.starts_servers else None, None)
        config = model_files.config_file(experiment.model)
        on_gpus = launcher.starts_servers and engine.computes_on_gpus(LaunchContext.from_experiment(experiment))
        measured = experiment.optimization.evaluator != "simulated"
        return cls(experiment, _gpu_type(experiment) if on_gpus else None, str(config) if config else None, measured)

    def model_on_gpus(self, candidate: Candidate) -> ModelOnGpus | None:
        """The candidate's model on its GPUs; None where it cannot be predicted."""
        return predictor.model_on_gpus_for(self.experiment, candidate, self.gpu, self.model_config)

    def memory_shortage(self, candidate: Candidate) -> str | None:
        """Why the candidate's model certainly does not fit, or None."""
        deployment, skewed = self.model_on_gpus(candidate), self.experiment.simulate.skew.sd > 0
        return predictor.memory_shortage(deployment, candidate, skewed=skewed) if deployment else None

    def weights_texts(self, candidates: Sequence[Candidate]) -> list[str]:
        """Bits and size of the candidates' weights and where they were read, each once."""
        texts = (predictor.weights_text_for(self.experiment, candidate, self.model_config) for candidate in candidates)
        return list(dict.fromkeys(text for text in texts if text))

    @property
    def model_notes(self) -> tuple[str, ...]:
        """What was read only roughly of the model's configuration."""
        return predictor.model_notes(self.experiment, self.model_config)

    def expects_fit(self, candidate: Candidate) -> bool:
        """Whether the model is expected to fit; true where that cannot be predicted."""
        deployment = self.model_on_gpus(candidate)
        return deployment is None or deployment.memory_plan.kv_tokens > 0

    def predict(self, candidate: Candidate, point: LoadPoint, costs: CostFactors = UNIT_COSTS) -> Prediction | None:
        """Predict one load point with these cost factors; None where it cannot be predicted."""
        deployment = self.model_on_gpus(candidate)
        if deployment is None:
            return None
        if costs != UNIT_COSTS:
            deployment = replace(deployment, costs=costs)
        scenario = scenarios.parse(point.scenario)
        prompt, output = scenario.mean_lengths
        prefix = 0 if candidate.parameters.get("prefix-caching") is False else scenario.prefix_tokens
        prediction = predictor.predict_load_point(
            deployment, point, prompt_tokens=prompt, output_tokens=output, prefix_tokens=prefix
        )
        local = ratios_for(deployment) if self.uses_calibration else None
        if prediction is None or local is None:
            return prediction
        traffic = Traffic(max(1, round(prompt)), max(1, round(output)))
        in_flight = point.concurrency or prediction.requests * (prediction.ttft + output * prediction.tpot)
        return Correction(local.ratios, deployment, traffic).apply(prediction, in_flight)


def _gpu_type(experiment: Experiment) -> str | None:
    """The type the experiment names, else that of this machine's GPUs; None where they differ."""
    hardware = experiment.hardware
    if hardware.gpu_type:
        return hardware.gpu_type
    names = {gpu.name for gpu in gpus.query_inventory() if not hardware.gpus or gpu.index in hardware.gpus}
    return names.pop() if len(names) == 1 else None
