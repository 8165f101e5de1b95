"""How the workers of a profile are launched: the experiment, its engine and evaluator, and what forbids a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from autotuner import model_files
from autotuner.config import Composition, Overrides, TaskContext, compose, leaves, merge
from autotuner.core import PARALLEL_SIZES, Candidate, Source, Value
from autotuner.engines import Engine, LaunchContext, as_simulated, engine
from autotuner.errors import AutotuneError, ConfigError, EndpointError, MachineError
from autotuner.evaluate.simulated import simulated_gpu
from autotuner.experiment import Experiment
from autotuner.forecaster import Forecaster
from autotuner.machine import LocalMachine, check_engine_flags, preflight
from autotuner.predict.shape import ModelShape, model_shape
from autotuner.profiling.mappings import ForbiddenMapping, ParallelMapping, divide_by_feasibility, possible_mappings
from autotuner.profiling.predicted import WorkerForecast
from autotuner.profiling.request import SlaRequest

LAUNCH_TIMEOUT_SECONDS = 6 * 3600.0
"""A launch serves all points of a mapping; --max-seconds bounds the profile."""
UNKNOWN_KV_REMEDY = "Give the KV capacity in tokens with --max-kv-tokens; the engine's log has it at its start."


def compose_experiment(request: SlaRequest, *, origin: str) -> Composition:
    """The experiment whose launches a profile measures; the request's settings are merged last."""
    simulated = request.evaluator != "measured"
    sections: dict[str, Any] = {
        "benchmark": {"traffic_scenarios": [f"D({request.isl},{request.osl})"], "num_concurrency": [1]},
        "optimization": {
            "evaluator": "simulated" if simulated else "measured",
            "timeout_per_iteration": LAUNCH_TIMEOUT_SECONDS,
        },
    }
    if request.url is not None:
        sections["deployment"] = {"mode": "external", "url": request.url}
    elif request.runtime == "sim" and request.gpu is not None:
        sections["simulate"] = {"gpu": request.gpu}
    data = merge(sections, request.settings)
    places = getattr(request.settings, "places", {})
    context = TaskContext(
        model_name=request.model,
        base_runtime="openai" if request.url is not None else request.runtime,
        deployment_mode="external" if request.url is not None else None,
        gpu_type=request.gpu if request.url is None else None,
        user_overrides=Overrides(data, {**dict.fromkeys(leaves(data), origin), **places}),
        machine=LocalMachine(),
        origin=origin,
    )
    if request.url is not None:
        from autotuner.running_server import with_served_model

        context = with_served_model(context)
    return compose(context)


@dataclass(frozen=True)
class WorkerSetup:
    """The engine and the experiment of a profile, and the parameters that all its mappings share."""

    request: SlaRequest
    experiment: Experiment

    @cached_property
    def engine(self) -> Engine:
        return engine(self.experiment.base_runtime)

    @property
    def source(self) -> Source:
        """What the points are: measured, simulated or predicted."""
        if self.request.evaluator == "predicted":
            return "predicted"
        return "simulated" if self.request.evaluator == "simulated" else self.engine.source

    @cached_property
    def base_parameters(self) -> dict[str, Value]:
        """Engine parameters with one value in the experiment, except parallel sizes."""
        parameters = self.experiment.parameters
        return {
            name: values[0] for name, values in parameters.items() if len(values) == 1 and name not in PARALLEL_SIZES
        }

    @cached_property
    def shape(self) -> ModelShape | None:
        """The model's shape; None where its configuration is not available here."""
        try:
            return model_shape(model_files.path_or_name(self.experiment.model))
        except ConfigError:
            return None

    @cached_property
    def gpu(self) -> str | None:
        """The GPU type of predictions."""
        if self.request.evaluator == "measured" and self.experiment.base_runtime != "sim":
            return self.experiment.hardware.gpu_type
        return simulated_gpu(self.experiment)

    @cached_property
    def forecaster(self) -> Forecaster:
        config = model_files.config_file(self.experiment.model)
        return Forecaster(self.experiment, self.gpu, str(config) if config else None)

    def candidate(self, mapping: ParallelMapping) -> Candidate:
        """The launch of a mapping."""
        if self.request.url is not None:
            return Candidate(self.experiment.base_runtime)
        return mapping.candidate(self.experiment.base_runtime, self.base_parameters)

    def forecast(self, mapping: ParallelMapping) -> WorkerForecast | None:
        """Predictions for a worker of the mapping; None where it cannot be predicted."""
        if self.request.url is not None:
            return None
        deployment = self.forecaster.model_on_gpus(self.candidate(mapping))
        return WorkerForecast(deployment) if deployment is not None else None

    def mappings(self) -> tuple[list[ParallelMapping], list[ForbiddenMapping]]:
        """The mappings to try, and those that are never started; ConfigError if none is left."""
        counts = self.request.gpus_per_engine
        if self.request.url is not None:
            return [ParallelMapping("tp", counts[0])], []
        allowed, forbidden = divide_by_feasibility(
            possible_mappings(self.shape, self.experiment.base_runtime, counts), self.rejection_reason
        )
        if not allowed:
            total = self.request.total_gpus
            fewer = total is not None and total < min(counts)
            raise ConfigError(
                f"No worker of {' or '.join(map(str, counts))} {'GPU' if counts == (1,) else 'GPUs'} can run "
                f"{self.request.model}.",
                why=" ".join(f"{item.mapping.label}: {item.reason}." for item in forbidden),
                remedy="Allow more --total-gpus, or fewer GPUs with --gpus-per-engine."
                if fewer
                else "Allow more GPUs with --gpus-per-engine, or name another --gpu.",
            )
        return allowed, forbidden

    def rejection_reason(self, mapping: ParallelMapping) -> str | None:
        """Why a mapping cannot run, as far as memory, divisibility and the GPU budget tell; None if it may."""
        total, candidate = self.request.total_gpus, self.candidate(mapping)
        if total is not None and mapping.gpus > total:
            return f"it needs {mapping.gpus} GPUs, and --total-gpus is {total}"
        context = LaunchContext.from_experiment(self.experiment)
        reason = self.engine.rejection_reason(candidate, context) or self.forecaster.memory_shortage(candidate)
        if reason is None and self.request.evaluator == "simulated":
            reason = as_simulated.rejection_reason(candidate)
        if reason is None and (forecast := self.forecast(mapping)) is not None:
            needed = self.request.isl + self.request.osl
            if forecast.max_context < needed and self.source != "measured":
                return f"its KV cache holds {forecast.kv_tokens:,} tokens, and one request has {needed:,}"
        return reason

    def check(self) -> None:
        """AutotuneError if this machine or the request forbids every launch."""
        if self.request.evaluator == "measured":
            check_engine_flags(self.experiment, self.engine, is_launched=True)
            self.engine.check_model(self.experiment.model)
            preflight(self.experiment, self.engine, self._launcher)
        elif self.shape is None:
            model_shape(model_files.path_or_name(self.experiment.model))
        elif self.gpu is None:
            raise ConfigError(
                f"A {self.request.evaluator} profile needs a GPU type.", remedy="Name it with --gpu, such as H100."
            )

    @property
    def _launcher(self) -> Any:
        from autotuner.launchers import launcher

        return launcher(self.experiment.deployment.mode, self.experiment.deployment)

    def gpu_count(self, mapping: ParallelMapping) -> int:
        """GPUs of this machine that a launch of the mapping occupies."""
        if self.request.url is not None or self.request.evaluator != "measured":
            return 0
        context = LaunchContext.from_experiment(self.experiment)
        return self.engine.local_gpu_count(self.candidate(mapping)) if self.engine.computes_on_gpus(context) else 0

    def capacity(self, mapping: ParallelMapping, server: Mapping[str, Any]) -> tuple[int, int, int | None]:
        """(KV tokens over all replicas, longest request, most running requests or None) of a worker that is ready.

        MachineError if neither the request nor the server tells the KV capacity.
        """
        replicas = mapping.attention_dp
        kv_tokens = self.request.max_kv_tokens or _count(server.get("kv_tokens")) * replicas
        if not kv_tokens and self.request.url is not None:
            kv_tokens = self._external_kv_tokens()
        if not kv_tokens:
            raise MachineError(
                f"{mapping.label} does not tell the size of its KV cache.",
                why="Neither its log nor its metrics have it, and without it KV usage is unknown.",
                remedy=UNKNOWN_KV_REMEDY,
            )
        running = self.base_parameters.get("max-running-requests") or server.get("max_running_requests")
        limit = _count(running) * replicas if running else None
        return kv_tokens, self._max_context(kv_tokens // replicas), limit

    def _max_context(self, replica_kv_tokens: int) -> int:
        """The longest request to measure, within the engine's limit, the model's and the KV cache."""
        configured = _count(self.base_parameters.get("max-model-len"))
        limits = [self.request.longest_context, configured or None, replica_kv_tokens]
        if self.shape is not None:
            limits.append(self.shape.max_model_len)
        return min(limit for limit in limits if limit is not None)

    def _external_kv_tokens(self) -> int:
        from autotuner.endpoints.headers import request_headers, tls_trust
        from autotuner.endpoints.kv_capacity import read_kv_tokens

        deployment = self.experiment.deployment
        try:
            return read_kv_tokens(deployment.url or "", request_headers(deployment), tls_trust(deployment)) or 0
        except AutotuneError as error:
            raise EndpointError(error.what, why=error.why, remedy=UNKNOWN_KV_REMEDY) from error


def _count(value: Any) -> int:
    try:
        return max(0, int(str(value).replace(",", "")))
    except ValueError:
        return 0
