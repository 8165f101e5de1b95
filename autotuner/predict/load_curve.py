"""One deployment under one kind of request: its closed loop at any load, and its two phases apart."""

from __future__ import annotations

import math
from functools import cached_property

from autotuner.predict.calibration import basis_of, calibration
from autotuner.predict.efficiencies import step_parts
from autotuner.predict.local_factors import corrected, factors_for
from autotuner.predict.model_on_gpus import Deployment
from autotuner.predict.predict import Prediction, closed_loop, effect_keys
from autotuner.predict.traffic import Traffic

MOST_IN_BATCH = 512
"""Requests a replica runs at once at most: engines' usual limit, and the largest load of the fit."""


class Served:
    """A deployment and the requests it serves; every load is computed once.

    Factors that were calibrated here for its engine and GPU are in all its figures, unless
    `bundled_only`.
    """

    def __init__(self, of: Deployment, traffic: Traffic, *, bundled_only: bool = False) -> None:
        self.of = of
        self.traffic = traffic
        self.bundled_only = bundled_only
        self.factors = None if bundled_only else factors_for(of.engine, of.gpu.name)
        self._closed: dict[float, Prediction] = {}

    def closed(self, concurrency: float) -> Prediction:
        """The closed loop of so many requests in flight over all replicas."""
        found = self._closed.get(concurrency)
        if found is None:
            found = self._bundled(concurrency)
            if self.factors is not None:
                found = corrected(found, self._bundled_alone, self.factors)
            self._closed[concurrency] = found
        return found

    def _bundled(self, concurrency: float) -> Prediction:
        asked = self.traffic
        return closed_loop(
            self.of,
            isl=asked.isl,
            osl=asked.osl,
            concurrency=concurrency,  # type: ignore[arg-type]
            prefix_hit=asked.prefix_hit,
            draft_tokens=asked.draft_tokens,
            acceptance=asked.acceptance,
        )

    @cached_property
    def _bundled_alone(self) -> Prediction:
        return self._bundled(self.of.layout.dp)

    @cached_property
    def alone(self) -> Prediction:
        """One request in flight on each replica."""
        return self.closed(self.of.layout.dp)

    @cached_property
    def most(self) -> float:
        """Requests in flight at most, over all replicas."""
        batch = self.of.max_running or MOST_IN_BATCH
        return max(float(self.of.layout.dp), min(self.alone.running, batch * self.of.layout.dp))

    @cached_property
    def prefill_seconds(self) -> float:
        """Seconds of GPU time that one prompt costs where prompts are batched, over all replicas."""
        new = self.traffic.isl * (1 - self.traffic.prefix_hit)
        layout, together = self.of.layout, int(max(1.0, self.of.max_batched_tokens / max(1.0, new)))
        work = self.of.operators.work([(new, self.traffic.isl - new)] * together, 0, 0)
        seconds = step_parts(work, self.of.bundled_rates, eager=True).total
        factor = self.factors.prefill if self.factors else 1.0
        return factor * seconds / together / (layout.dp * layout.pp)

    @cached_property
    def overhead(self) -> float:
        """Seconds to the first token besides the prefill itself, with one request in flight."""
        return max(0.0, self.alone.ttft - sum(self.alone.prefill.values()))

    def decode_only(self, concurrency: float) -> float:
        """Seconds per token where so many requests decode and nobody prefills beside them."""
        found, asked = self.closed(concurrency), self.traffic
        iteration = sum(found.decode.values())
        if asked.draft_tokens:
            layers = self.of.shape.layers
            iteration *= 1 + asked.draft_tokens * max(1, self.of.shape.draft_layers) / layers
        kept: float = sum(asked.acceptance**n for n in range(asked.draft_tokens + 1))
        basis = basis_of(asked.isl, asked.osl, concurrency)
        effect, _ = calibration().effect("tpot", effect_keys(self.of), basis)
        return min(found.tpot, iteration / kept * math.exp(effect))
