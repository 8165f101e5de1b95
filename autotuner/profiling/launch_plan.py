"""A schedule as the load plan of a launch: phase loads become load points, raw records become points."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from autotuner.core import LoadPlanSummary, LoadPoint, LoadPointResult, LoadStep, Observation, Source, Workload
from autotuner.profiling.measurements import decode_point, prefill_point
from autotuner.profiling.phase_schedule import PhaseSchedule
from autotuner.profiling.points import CacheFill, DecodeLoad, PhaseLoad, PrefillLoad, PrefillPoint, ProfilePoint

WINDOW_SECONDS = 1800.0
"""A phase load ends with its last request; this bounds one that hangs."""
FILL_CONCURRENCY = 16
"""Requests in flight while the prefix cache is filled: prefills run one after the other anyway."""
PREFILL_OUTPUT_TOKENS = 5
"""Output tokens of a prefill request: enough to see that the answer is a stream."""


@dataclass
class PhaseLoadPlan:
    """The load plan of one launch, an `ObservingLoadPlan`.

    `capacity` gives (KV tokens over all replicas, longest request, most running requests or None) from what the server
    reports. An endpoint's `source` is what it reports itself. `seconds_left` are those of the profile at the start of
    the launch.
    """

    schedule: PhaseSchedule
    workload: Workload
    source: Source
    capacity: Callable[[Mapping[str, Any]], tuple[int, int, int | None]]
    on_point: Callable[[PhaseLoad, ProfilePoint | None], None]
    seconds_left: float | None = None
    salt: str = field(default_factory=lambda: secrets.token_hex(8))
    start_seconds: float = 0.0
    load_seconds: float = 0.0
    out_of_time: bool = False
    _observation: Observation | None = None

    @property
    def max_load_points(self) -> int:
        """Upper bound on the load points, for progress and time limits."""
        request = self.schedule.request
        return 2 * (request.prefill_points + (request.decode_points + 4) * (request.decode_points + 1))

    @property
    def outcome(self) -> LoadPlanSummary:
        return LoadPlanSummary()

    def server_ready(self, server: Mapping[str, Any], start_seconds: float) -> None:
        """Start the schedule with the worker's capacity."""
        self.start_seconds = start_seconds
        self.source = server.get("source", self.source)
        self.schedule.begin(*self.capacity(server))

    def ask(self) -> LoadStep | None:
        """The next load point; None at the end of the schedule, or when the time is up."""
        used = self.start_seconds + self.load_seconds
        if self.schedule.next_load is not None and self.seconds_left is not None and used > self.seconds_left:
            self.out_of_time = True
            self.schedule.stop()
        load = self.schedule.next_load
        return self._step(load) if load is not None else None

    def _step(self, load: PhaseLoad) -> LoadStep:
        if isinstance(load, PrefillLoad):
            point = LoadPoint(f"D({load.prompt_tokens},{PREFILL_OUTPUT_TOKENS})", concurrency=load.concurrency)
            return self._load_step(point, load.requests)
        salt = f"{self.salt} {load.prompt_tokens}"
        if isinstance(load, CacheFill):
            concurrency = min(load.requests, FILL_CONCURRENCY)
            return self._load_step(
                LoadPoint(f"D({load.prompt_tokens},1)", concurrency=concurrency), load.requests, salt
            )
        point = LoadPoint(f"D({load.prompt_tokens},{load.output_tokens})", concurrency=load.concurrency)
        return self._load_step(point, load.concurrency, salt)

    def _load_step(self, point: LoadPoint, requests: int, salt: str | None = None) -> LoadStep:
        workload = replace(
            self.workload,
            load_points=(point,),
            duration=WINDOW_SECONDS,
            max_duration=None,
            warmup=0.0,
            max_requests=requests,
            prompt_salt=salt,
            keeps_load=False,
        )
        return LoadStep(workload)

    def observe(self, observation: Observation) -> None:
        """Keep the raw records until `tell`."""
        self._observation = observation

    def tell(self, result: LoadPointResult) -> None:
        """Summarise the observed requests as a point of the profile, and advance the schedule."""
        # `observe` has kept the raw records; the result is judged against targets, which a profile does not ask
        observation, load = self._observation, self.schedule.next_load
        assert observation is not None
        assert load is not None
        self.load_seconds += observation.window[1] - observation.window[0]
        point = self._point(load, observation)
        self.on_point(load, point)
        self.schedule.add(point)

    def _point(self, load: PhaseLoad, observation: Observation) -> ProfilePoint | None:
        mapping = self.schedule.mapping
        if isinstance(load, PrefillLoad):
            earlier = self.schedule.points.get(("prefill", load.prompt_tokens))
            samples = earlier.samples if isinstance(earlier, PrefillPoint) else ()
            return prefill_point(
                load,
                observation,
                gpus=mapping.gpus,
                attention_dp=mapping.attention_dp,
                source=self.source,
                earlier_samples=samples,
            )
        if isinstance(load, DecodeLoad):
            kv_tokens = self.schedule.kv_tokens
            return decode_point(load, observation, gpus=mapping.gpus, kv_tokens=kv_tokens, source=self.source)
        return None
