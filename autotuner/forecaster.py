"""Forecasts for candidates before they are launched: whether their model fits, and the figures of a load point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from autotuner import model_files
from autotuner.core import Candidate, LoadPoint
from autotuner.engines import Engine, LaunchContext
from autotuner.experiment import Experiment
from autotuner.launchers import Launcher, gpus
from autotuner.predict import candidate as predictor
from autotuner.predict.efficiencies import UNIT_COSTS, CostFactors
from autotuner.predict.harness import AUTOTUNE
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.local_ratios import Correction, ratios_for
from autotuner.predict.log_ratios import MeasuredRatio
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
    _offsets: dict[tuple[str, LoadPoint], Mapping[str, float]] = field(default_factory=dict, compare=False, repr=False)

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
        prediction = self.predict_from_constants(candidate, point, costs)
        deployment = self.model_on_gpus(candidate) if self.uses_calibration and prediction else None
        local = ratios_for(deployment) if deployment else None
        return self.corrected(prediction, local.ratios, candidate, point) if prediction and local else prediction

    def predict_from_constants(
        self, candidate: Candidate, point: LoadPoint, costs: CostFactors = UNIT_COSTS
    ) -> Prediction | None:
        """Predict one load point as if nothing had been measured; None where it cannot be predicted."""
        deployment = self.model_on_gpus(candidate)
        if deployment is None:
            return None
        if costs != UNIT_COSTS:
            deployment = replace(deployment, costs=costs)
        scenario = scenarios.parse(point.scenario)
        prompt, output = scenario.mean_lengths
        prefix = 0 if candidate.parameters.get("prefix-caching") is False else scenario.prefix_tokens
        return predictor.predict_load_point(
            deployment, point, prompt_tokens=prompt, output_tokens=output, prefix_tokens=prefix
        )

    def corrected(
        self, prediction: Prediction, ratios: Sequence[MeasuredRatio], candidate: Candidate, point: LoadPoint
    ) -> Prediction:
        """A prediction for this load point, corrected by what was measured of its model."""
        deployment = self.model_on_gpus(candidate)
        if deployment is None:
            return prediction
        scenario = scenarios.parse(point.scenario)
        isl, osl = (max(1, round(length)) for length in scenario.mean_lengths)
        prefix = 0 if candidate.parameters.get("prefix-caching") is False else scenario.prefix_tokens
        traffic = Traffic(isl, osl, prefix_hit=min(prefix / isl, 1 - 1 / isl))
        in_flight = point.concurrency or prediction.requests * (prediction.ttft + osl * prediction.tpot)
        key = candidate.key, point
        if key not in self._offsets:
            self._offsets[key] = _schedule_offsets(deployment, traffic, max(1, round(in_flight)))
        offsets = self._offsets[key]
        return Correction(ratios, deployment, traffic).apply(prediction, in_flight, offsets)


def _schedule_offsets(deployment: ModelOnGpus, traffic: Traffic, concurrency: int) -> Mapping[str, float]:
    """Logs of TTFT and TPOT in the simulated schedule of our load generator over those in closed form."""
    simulated, closed = (
        LoadCurve(deployment, traffic, bundled_only=True, harness=harness).at_concurrency(concurrency)
        for harness in (AUTOTUNE, None)
    )
    return {metric: math.log(getattr(simulated, metric) / getattr(closed, metric)) for metric in ("ttft", "tpot")}


def _gpu_type(experiment: Experiment) -> str | None:
    """The type the experiment names, else that of this machine's GPUs; None where they differ."""
    hardware = experiment.hardware
    if hardware.gpu_type:
        return hardware.gpu_type
    names = {gpu.name for gpu in gpus.query_inventory() if not hardware.gpus or gpu.index in hardware.gpus}
    return names.pop() if len(names) == 1 else None
