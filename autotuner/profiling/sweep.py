"""Phases 1 to 5: launch the mappings, the most promising first, and complete the curves of the selected ones."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from autotuner.core import Candidate, Failure, Observer, Trial, ignore_progress
from autotuner.errors import pluralize
from autotuner.evaluate.create import create_evaluator
from autotuner.evaluate.protocol import Evaluator
from autotuner.execute.trial import run_trial
from autotuner.launchers import gpu_locks
from autotuner.profiling.expectations import Expectations
from autotuner.profiling.launch_plan import PhaseLoadPlan
from autotuner.profiling.mappings import ForbiddenMapping, ParallelMapping
from autotuner.profiling.phase_schedule import Leader, PhaseSchedule
from autotuner.profiling.points import (
    CacheFill,
    DecodeLoad,
    DecodePoint,
    PhaseLoad,
    PrefillLoad,
    PrefillPoint,
    ProfilePoint,
)
from autotuner.profiling.predicted import WorkerForecast
from autotuner.profiling.record import ProfiledLaunch, ProfileRecord
from autotuner.profiling.select import select
from autotuner.profiling.workers import WorkerSetup
from autotuner.search.launch import Launch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SkippedMapping:
    """A mapping that was not launched, and why."""

    mapping: ParallelMapping
    reason: str


@dataclass
class SweepResult:
    """What was not launched, and why the sweep ended before its end, if it did."""

    forbidden: list[ForbiddenMapping] = field(default_factory=list)
    skipped: list[SkippedMapping] = field(default_factory=list)
    stop_reason: str | None = None


@dataclass(frozen=True)
class SelectedLeader:
    """Asks for the curves of the phases a mapping was selected for."""

    prefill: ParallelMapping | None
    decode: ParallelMapping | None

    def leads_prefill(self, mapping: ParallelMapping) -> bool:
        """Whether the mapping is the selected prefill worker; see Leader."""
        return mapping == self.prefill

    def leads_decode(self, mapping: ParallelMapping) -> bool:
        """Whether the mapping is the selected decode worker; see Leader."""
        return mapping == self.decode


class Sweep:
    """Launches workers and adds their points to a record."""

    def __init__(self, setup: WorkerSetup, record: ProfileRecord, observe: Observer = ignore_progress) -> None:
        self.setup, self.record, self.observe = setup, record, observe
        self.result = SweepResult()
        self.mappings, self.result.forbidden = setup.mappings()
        self.forecasts: dict[ParallelMapping, WorkerForecast] = {
            mapping: forecast for mapping in self.mappings if (forecast := setup.forecast(mapping)) is not None
        }
        self._devices: tuple[int, ...] = ()
        self._evaluator: Evaluator | None = None

    def run(self, *, accept_nearest: bool = False) -> SweepResult:
        """Measure every mapping that may win, then what the curves of the selected ones lack.

        Where no worker meets a target the curves are completed only with `accept_nearest`.
        """
        for forbidden in self.result.forbidden:
            log.info("%s is not started: %s", forbidden.mapping.label, forbidden.reason)
        with self._reserved_gpus():
            self._sweep_mappings(accept_nearest=accept_nearest)
            selection = select(self.record)
            if self.result.stop_reason is None and (accept_nearest or not selection.missed_targets):
                prefill, decode = selection.prefill_pick, selection.decode_pick
                self._complete_curves(
                    SelectedLeader(prefill.mapping if prefill else None, decode.mapping if decode else None)
                )
        return self.result

    def planned_launches(self) -> list[ParallelMapping]:
        """The mappings in the order of their launches, those that may be skipped included."""
        return Expectations(self.record, self.forecasts, list(self.mappings)).in_order()

    def _sweep_mappings(self, *, accept_nearest: bool) -> None:
        launched = {launch.mapping for launch in self.record.launches}
        pending = [mapping for mapping in self.mappings if mapping not in launched]
        expectations = Expectations(self.record, self.forecasts, pending, accept_nearest)
        while pending and self.result.stop_reason is None:
            mapping = expectations.in_order()[0]
            pending.remove(mapping)
            reason = expectations.why_hopeless(mapping)
            if reason is not None:
                log.info("%s is skipped: %s", mapping.label, reason)
                self.result.skipped.append(SkippedMapping(mapping, reason))
            else:
                self._launch(mapping, expectations)

    def _complete_curves(self, leader: SelectedLeader) -> None:
        for mapping in dict.fromkeys((leader.prefill, leader.decode)):
            if mapping is None or self.result.stop_reason is not None:
                continue
            schedule = self._schedule(mapping, leader)
            earlier_launch = next((launch for launch in self.record.launches if launch.mapping == mapping), None)
            if earlier_launch is not None:
                schedule.begin(earlier_launch.kv_tokens, earlier_launch.max_context, earlier_launch.running_limit)
                if schedule.next_load is None:
                    continue
            self._launch(mapping, leader)

    def _schedule(self, mapping: ParallelMapping, leader: Leader) -> PhaseSchedule:
        points = dict(self.record.points.get(mapping, {}))
        return PhaseSchedule(
            self.record.request, mapping, points, leader, lambda point: self.record.add_point(mapping, point)
        )

    def _launch(self, mapping: ParallelMapping, leader: Leader) -> None:
        """Launch a mapping and measure its schedule; a worker that fails is recorded, and the sweep goes on."""
        number, schedule = len(self.record.launches) + 1, self._schedule(mapping, leader)
        seconds_left = self._seconds_left()
        if seconds_left is not None and seconds_left <= 0:
            self.result.stop_reason = f"--max-seconds {self.record.request.max_seconds:g} are used up"
            return
        log.info("launch %d: %s", number, mapping.label)
        if self.setup.request.evaluator == "predicted":
            launch = self._predict_schedule(number, schedule)
        else:
            launch = self._measure_schedule(number, schedule, seconds_left)
        self.record.add_launch(launch)
        if launch.failure is not None:
            log.warning("%s failed (%s): %s", mapping.label, launch.failure.kind.value, launch.failure.message)
        if schedule.caches_nothing:
            log.warning("%s: no prompt came from a prefix cache, so no decode point can be filed.", mapping.label)

    def _seconds_left(self) -> float | None:
        limit = self.record.request.max_seconds
        return None if limit is None else limit - self.record.seconds

    def _predict_schedule(self, number: int, schedule: PhaseSchedule) -> ProfiledLaunch:
        mapping, forecast = schedule.mapping, self.forecasts[schedule.mapping]
        max_context = min(forecast.max_context, self.record.request.longest_context)
        schedule.begin(forecast.kv_tokens, max_context, forecast.running_limit)
        while (load := schedule.next_load) is not None:
            if isinstance(load, PrefillLoad):
                schedule.add(forecast.prefill_point(load))
            elif isinstance(load, DecodeLoad):
                schedule.add(forecast.decode_point(load, schedule.kv_tokens))
            else:
                schedule.add(None)
        return ProfiledLaunch(mapping, number, schedule.kv_tokens, max_context, forecast.running_limit, 0.0, 0.0)

    def _measure_schedule(self, number: int, schedule: PhaseSchedule, seconds_left: float | None) -> ProfiledLaunch:
        mapping, setup = schedule.mapping, self.setup
        evaluator = self._evaluator or create_evaluator(setup.experiment, self.observe)
        self._evaluator = evaluator
        reported: list[tuple[int, int, int | None]] = []

        def capacity(server: object) -> tuple[int, int, int | None]:
            earlier_launch = next((launch for launch in self.record.launches if launch.mapping == mapping), None)
            # a later launch of a mapping goes on with the grid of its first one
            values = (
                (earlier_launch.kv_tokens, earlier_launch.max_context, earlier_launch.running_limit)
                if earlier_launch is not None and earlier_launch.kv_tokens
                else setup.capacity(mapping, server)  # type: ignore[arg-type]
            )
            reported.append(values)
            log.info("%s is ready: KV cache of %s tokens", mapping.label, f"{values[0]:,}")
            return values

        plan = PhaseLoadPlan(
            schedule,
            replace(setup.experiment.workload(), load_points=()),
            setup.source,
            capacity,
            lambda load, point: log.info("%s", point_text(mapping, load, point)),
            seconds_left,
        )
        candidate = self._candidate(mapping)
        folder = self.record.path / "launches" / f"{number:03d}-{mapping.name}"
        trial = run_trial(evaluator, number, Launch(candidate, load_plan=plan), folder, self._devices)
        if plan.out_of_time:
            self.result.stop_reason = f"--max-seconds {self.record.request.max_seconds:g} are used up"
        kv_tokens, max_context, running_limit = reported[0] if reported else (0, 0, None)
        timings = trial.measurement.timings
        return ProfiledLaunch(
            mapping,
            number,
            kv_tokens,
            max_context,
            running_limit,
            timings.get("start", 0.0),
            sum(timings.values()),
            _failure(trial),
            tuple(schedule.remarks),
        )

    def _candidate(self, mapping: ParallelMapping) -> Candidate:
        return self.setup.candidate(mapping)

    @contextmanager
    def _reserved_gpus(self) -> Iterator[None]:
        """Hold the GPUs of the largest mapping, so that no other run gets them between two launches."""
        count = max((self.setup.gpu_count(mapping) for mapping in self.mappings), default=0)
        indexes = self.setup.experiment.hardware.gpus if count else ()
        with gpu_locks.reserve_gpus(count, indexes) as devices:
            self._devices = devices
            yield


def _failure(trial: Trial) -> Failure | None:
    return trial.measurement.failure


def point_text(mapping: ParallelMapping, load: PhaseLoad, point: ProfilePoint | None) -> str:
    """One line about a point, for the log."""
    if isinstance(load, CacheFill):
        prompts = pluralize(load.requests, "prompt")
        return f"{mapping.label}: {prompts} of {load.prompt_tokens:,} tokens are in the prefix cache"
    if isinstance(point, PrefillPoint):
        text = f"{mapping.label} prefill {point.prompt_tokens:,} tokens: TTFT {1000 * point.ttft:,.1f} ms"
    elif isinstance(point, DecodePoint):
        text = (
            f"{mapping.label} decode {point.concurrency} x {point.context_length:,.0f} tokens: "
            f"ITL {1000 * point.itl:,.2f} ms, {point.throughput_per_gpu:,.0f} tokens/s per GPU"
        )
    else:
        return f"{mapping.label}: {load}"
    return f"{text}; left out: {point.rejection}" if point.rejection else text
