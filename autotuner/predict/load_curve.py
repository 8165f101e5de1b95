"""Predictions of one deployment under one traffic as functions of load, and of prefill and decode alone."""

from __future__ import annotations

from functools import cached_property

from autotuner.predict.efficiencies import step_parts
from autotuner.predict.harness import AUTOTUNE, Harness
from autotuner.predict.local_ratios import Correction, ratios_for
from autotuner.predict.loop_times import DECODE, PREFILL
from autotuner.predict.model_on_gpus import ModelOnGpus
from autotuner.predict.predict import Prediction, predict_closed_loop
from autotuner.predict.traffic import Traffic

MAX_BATCH = 512
"""Most requests a replica runs at once where its limit is unknown: engines' usual one."""


class LoadCurve:
    """Predictions of a deployment under one traffic, computed once per load.

    Its closed loops are those that `harness` drives; None: endless ones, in closed form. All are corrected by what was
    calibrated on this machine for its model, engine and GPU type, unless `bundled_only`.
    """

    def __init__(
        self,
        deployment: ModelOnGpus,
        traffic: Traffic,
        *,
        bundled_only: bool = False,
        harness: Harness | None = AUTOTUNE,
    ) -> None:
        self.deployment = deployment
        self.traffic = traffic
        self.bundled_only = bundled_only
        self.harness = harness
        self.ratios = None if bundled_only else ratios_for(deployment)
        self.correction = Correction(self.ratios.ratios, deployment, traffic) if self.ratios else None
        self._predictions: dict[float, Prediction] = {}

    def at_concurrency(self, concurrency: float) -> Prediction:
        """The prediction of a closed loop with this many requests in flight over all replicas."""
        prediction = self._predictions.get(concurrency)
        if prediction is None:
            prediction = self._bundled_prediction(concurrency)
            if self.correction is not None:
                prediction = self.correction.apply(prediction, concurrency)
            self._predictions[concurrency] = prediction
        return prediction

    def _bundled_prediction(self, concurrency: float) -> Prediction:
        traffic = self.traffic
        return predict_closed_loop(
            self.deployment,
            isl=traffic.isl,
            osl=traffic.osl,
            concurrency=concurrency,  # type: ignore[arg-type]
            prefix_hit=traffic.prefix_hit,
            draft_tokens=traffic.draft_tokens,
            acceptance=traffic.acceptance,
            harness=self.harness,
        )

    @cached_property
    def single_request(self) -> Prediction:
        """The prediction with one request in flight on each replica."""
        return self.at_concurrency(self.deployment.layout.dp)

    @cached_property
    def max_concurrency(self) -> float:
        """Most requests that run at once, over all replicas."""
        batch, dp = self.deployment.max_running_requests or MAX_BATCH, self.deployment.layout.dp
        return max(float(dp), min(self.single_request.max_in_flight, batch * dp))

    @cached_property
    def prefill_seconds(self) -> float:
        """Seconds per prompt of a deployment that does nothing but prefill batched prompts, on all its replicas."""
        new_tokens = self.traffic.isl * (1 - self.traffic.prefix_hit)
        layout, prompts = (
            self.deployment.layout,
            int(max(1.0, self.deployment.max_batched_tokens / max(1.0, new_tokens))),
        )
        work = self.deployment.operators.work([(new_tokens, self.traffic.isl - new_tokens)] * prompts, 0, 0)
        seconds = step_parts(work, self.deployment.bundled_efficiencies, eager=True).total
        parts = self.single_request.ttft_parts
        # What the single request's prefill was corrected by, too.
        factor = parts[PREFILL] / sum(self.single_request.prefill.values())
        return factor * seconds / prompts / (layout.dp * layout.pp)

    @cached_property
    def ttft_overhead(self) -> float:
        """Seconds of TTFT beside the prefill itself, with one request in flight."""
        return self.single_request.ttft - self.single_request.ttft_parts[PREFILL]

    def decode_only_tpot(self, concurrency: float) -> float:
        """TPOT in seconds of a worker that only decodes, as in disaggregated serving."""
        prediction = self.at_concurrency(concurrency)
        return prediction.tpot_parts[DECODE]
