"""A worker's TTFT and ITL by the performance model: to order mappings before a launch, or instead of one."""

from __future__ import annotations

from dataclasses import dataclass

from autotuner.errors import ConfigError
from autotuner.predict.memory import DEFAULT_RUNNING_REQUESTS
from autotuner.predict.model_on_gpus import ModelOnGpus
from autotuner.predict.predict import Prediction, predict_closed_loop
from autotuner.profiling.grid import batch_sizes, requests_that_fit
from autotuner.profiling.measurements import kv_usage
from autotuner.profiling.points import DecodeLoad, DecodePoint, PrefillLoad, PrefillPoint

PREFILL_OUTPUT_TOKENS = 5
"""Output tokens of a prefill request: TTFT does not depend on them."""
BATCHES_TRIED = 16
"""Numbers of requests at which the best decode throughput of a worker is predicted."""


@dataclass(frozen=True)
class WorkerForecast:
    """Predictions for one worker of `deployment`, its data-parallel replicas together."""

    deployment: ModelOnGpus

    @property
    def gpus(self) -> int:
        return self.deployment.layout.gpus

    @property
    def replicas(self) -> int:
        """Replicas of the attention layers."""
        return self.deployment.layout.dp

    @property
    def kv_tokens(self) -> int:
        """KV capacity in tokens, over all replicas."""
        return self.deployment.memory_plan.kv_tokens * self.replicas

    @property
    def running_limit(self) -> int:
        """The most requests that run at once, over all replicas."""
        return (self.deployment.max_running_requests or DEFAULT_RUNNING_REQUESTS) * self.replicas

    @property
    def max_context(self) -> int:
        """The longest request in tokens."""
        return min(self.deployment.shape.max_model_len, self.deployment.memory_plan.kv_tokens)

    def prefill_point(self, load: PrefillLoad) -> PrefillPoint:
        """The predicted TTFT of single prompts; rejected where the model does not hold them."""
        try:
            prediction = predict_closed_loop(
                self.deployment, isl=load.prompt_tokens, osl=PREFILL_OUTPUT_TOKENS, concurrency=self.replicas
            )
        except ConfigError as error:
            return PrefillPoint(load.prompt_tokens, 0.0, (0.0, 0.0), (), 0.0, "predicted", str(error))
        interval = prediction.ttft_interval
        throughput = load.prompt_tokens / prediction.ttft / self.gpus * self.replicas
        bounds = (interval.lower, interval.upper)
        return PrefillPoint(load.prompt_tokens, prediction.ttft, bounds, (prediction.ttft,), throughput, "predicted")

    def decode_point(self, load: DecodeLoad, kv_tokens: int) -> DecodePoint:
        """The predicted ITL of a worker that only decodes."""
        size = load.concurrency
        prediction: Prediction | None
        rejection: str | None = None
        try:
            prediction = predict_closed_loop(
                self.deployment,
                isl=load.prompt_tokens,
                osl=load.output_tokens,
                concurrency=size,
                separate_prefill=True,
            )
        except ConfigError as error:
            prediction, rejection = None, str(error)
        itl = prediction.tpot if prediction else 0.0
        return DecodePoint(
            prompt_tokens=load.prompt_tokens,
            output_tokens=load.output_tokens,
            concurrency=size,
            kv_usage=kv_usage(load, kv_tokens),
            itl=itl,
            interval=(prediction.tpot_interval.lower, prediction.tpot_interval.upper) if prediction else (0.0, 0.0),
            throughput_per_gpu=size / itl / self.gpus if itl else 0.0,
            running=size,
            cached_share=1.0,
            preemptions=0.0,
            consistency=1.0,
            source="predicted",
            rejection=rejection,
        )

    def best_decode(self, prompt_tokens: int, output_tokens: int, itl_target: float) -> DecodePoint | None:
        """The point with the highest throughput within the target, or with the lowest ITL; None if no request fits."""
        most = requests_that_fit(self.kv_tokens, prompt_tokens, output_tokens, self.running_limit)
        sizes = batch_sizes(most, BATCHES_TRIED, self.replicas)
        loads = [DecodeLoad(prompt_tokens, output_tokens, size) for size in sizes]
        points = [point for load in loads if (point := self.decode_point(load, self.kv_tokens)).rejection is None]
        within = [point for point in points if point.itl <= itl_target]
        if within:
            return max(within, key=lambda point: point.throughput_per_gpu)
        return min(points, key=lambda point: point.itl, default=None)
