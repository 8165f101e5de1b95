"""One deployment under one kind of request: its closed loop at any load, and its two phases apart."""

from __future__ import annotations

import math
from functools import cached_property

from autotuner.predict.calibration import bundled_calibration, effect_basis
from autotuner.predict.efficiencies import step_parts
from autotuner.predict.local_factors import apply_factors, factors_for
from autotuner.predict.model_on_gpus import ModelOnGpus
from autotuner.predict.predict import Prediction, effect_keys, predict_closed_loop
from autotuner.predict.traffic import Traffic

MAX_BATCH = 512
"""Requests a replica runs at once at most: engines' usual limit, and the largest load of the fit."""


class LoadCurve:
    """A deployment and the requests it serves; every load is computed once.

    Factors that were calibrated here for its engine and GPU are in all its figures, unless
    `bundled_only`.
    """

    def __init__(self, deployment: ModelOnGpus, traffic: Traffic, *, bundled_only: bool = False) -> None:
        self.deployment = deployment
        self.traffic = traffic
        self.bundled_only = bundled_only
        self.factors = None if bundled_only else factors_for(deployment.engine, deployment.gpu.name)
        self._predictions: dict[float, Prediction] = {}

    def at_concurrency(self, concurrency: float) -> Prediction:
        """The closed loop of so many requests in flight over all replicas."""
        found = self._predictions.get(concurrency)
        if found is None:
            found = self._bundled_prediction(concurrency)
            if self.factors is not None:
                found = apply_factors(found, self._bundled_single_request, self.factors)
            self._predictions[concurrency] = found
        return found

    def _bundled_prediction(self, concurrency: float) -> Prediction:
        asked = self.traffic
        return predict_closed_loop(
            self.deployment,
            isl=asked.isl,
            osl=asked.osl,
            concurrency=concurrency,  # type: ignore[arg-type]
            prefix_hit=asked.prefix_hit,
            draft_tokens=asked.draft_tokens,
            acceptance=asked.acceptance,
        )

    @cached_property
    def _bundled_single_request(self) -> Prediction:
        return self._bundled_prediction(self.deployment.layout.dp)

    @cached_property
    def single_request(self) -> Prediction:
        """One request in flight on each replica."""
        return self.at_concurrency(self.deployment.layout.dp)

    @cached_property
    def max_concurrency(self) -> float:
        """Requests in flight at most, over all replicas."""
        batch = self.deployment.max_running_requests or MAX_BATCH
        return max(
            float(self.deployment.layout.dp), min(self.single_request.max_in_flight, batch * self.deployment.layout.dp)
        )

    @cached_property
    def prefill_seconds(self) -> float:
        """Seconds of GPU time that one prompt costs where prompts are batched, over all replicas."""
        new = self.traffic.isl * (1 - self.traffic.prefix_hit)
        layout, together = self.deployment.layout, int(max(1.0, self.deployment.max_batched_tokens / max(1.0, new)))
        work = self.deployment.operators.work([(new, self.traffic.isl - new)] * together, 0, 0)
        seconds = step_parts(work, self.deployment.bundled_efficiencies, eager=True).total
        factor = self.factors.prefill if self.factors else 1.0
        return factor * seconds / together / (layout.dp * layout.pp)

    @cached_property
    def ttft_overhead(self) -> float:
        """Seconds to the first token besides the prefill itself, with one request in flight."""
        return max(0.0, self.single_request.ttft - sum(self.single_request.prefill.values()))

    def decode_only_tpot(self, concurrency: float) -> float:
        """Seconds per token where so many requests decode and nobody prefills beside them."""
        found, asked = self.at_concurrency(concurrency), self.traffic
        iteration = sum(found.decode.values())
        if asked.draft_tokens:
            layers = self.deployment.shape.layers
            iteration *= 1 + asked.draft_tokens * max(1, self.deployment.shape.draft_layers) / layers
        kept: float = sum(asked.acceptance**n for n in range(asked.draft_tokens + 1))
        basis = effect_basis(asked.isl, asked.osl, concurrency)
        effect, _ = bundled_calibration().effect("tpot", effect_keys(self.deployment), basis)
        return min(found.tpot, iteration / kept * math.exp(effect))
