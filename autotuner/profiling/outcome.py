"""What a profile decided and why: picks, nearest misses, what was not launched, curves, and the plan for the load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from autotuner.errors import NoFeasibleError, pluralize
from autotuner.profiling.fitting import LeaveOneOut, itl_errors, ttft_errors
from autotuner.profiling.plan import PlannedLoad, ServingPlan, WorkerCurves, plan_workers, rate_of_concurrency
from autotuner.profiling.planner_profile import PlannerProfile
from autotuner.profiling.points import DecodePoint, PrefillPoint, point_to_json
from autotuner.profiling.record import ProfileRecord
from autotuner.profiling.select import RankedWorker, WorkerSelection, best_per_mapping, select
from autotuner.profiling.sweep import SweepResult


@dataclass(frozen=True)
class ProfileOutcome:
    """The result of a profile so far; `sweep` is what its last run did not launch."""

    record: ProfileRecord
    sweep: SweepResult

    @cached_property
    def selection(self) -> WorkerSelection:
        return select(self.record)

    @cached_property
    def prefill_curve_points(self) -> list[PrefillPoint]:
        """The good prefill points of the selected mapping."""
        pick = self.selection.prefill_pick
        points = self.record.prefill_points(pick.mapping) if pick else []
        return [point for point in points if point.rejection is None]

    @cached_property
    def decode_curve_points(self) -> list[DecodePoint]:
        """The good decode points of the selected mapping."""
        pick = self.selection.decode_pick
        points = self.record.decode_points(pick.mapping) if pick else []
        return [point for point in points if point.rejection is None]

    @cached_property
    def profile(self) -> PlannerProfile | None:
        """The arrays of the planner's files; None before both phases have points."""
        pick = self.selection.decode_pick
        if pick is None or not self.prefill_curve_points:
            return None
        kv_tokens = self.record.kv_tokens(pick.mapping)
        if not kv_tokens:
            return None
        return PlannerProfile.from_points(self.prefill_curve_points, self.decode_curve_points, kv_tokens)

    @cached_property
    def profile_problems(self) -> list[str]:
        """Why the planner's files are not written; empty where they are."""
        if self.profile is None:
            return ["There are no good points of both phases"]
        return self.profile.problems()

    @property
    def is_complete(self) -> bool:
        """Whether both phases have a worker and curves that a planner can use."""
        return not self.profile_problems

    @cached_property
    def curves(self) -> WorkerCurves | None:
        """The fitted curves of the selected workers; None while incomplete."""
        prefill, decode = self.selection.prefill_pick, self.selection.decode_pick
        if self.profile is None or not self.is_complete or prefill is None or decode is None:
            return None
        return WorkerCurves(self.profile, prefill.mapping.gpus, decode.mapping.gpus)

    @cached_property
    def plan(self) -> ServingPlan | None:
        """Workers for the asked load, None without one or while incomplete; NoFeasibleError as of `plan_workers`."""
        request, curves = self.record.request, self.curves
        if curves is None or (request.rate is None and request.concurrency is None):
            return None
        load = PlannedLoad(request.rate or 0.0, request.isl, request.osl, request.ttft, request.itl, request.total_gpus)
        if request.concurrency is not None:
            rate = rate_of_concurrency(curves, load, request.concurrency)
            load = PlannedLoad(rate, load.isl, load.osl, load.ttft, load.itl, load.max_gpus)
        return plan_workers(curves, load)

    @cached_property
    def ttft_errors(self) -> LeaveOneOut[PrefillPoint]:
        return ttft_errors(self.prefill_curve_points)

    @cached_property
    def itl_errors(self) -> LeaveOneOut[DecodePoint]:
        return itl_errors(self.decode_curve_points)

    @property
    def sources(self) -> list[str]:
        """Where the points come from: measured, simulated, predicted."""
        points = (point for of_mapping in self.record.points.values() for point in of_mapping.values())
        return sorted({point.source for point in points})

    def infeasible_error(self) -> NoFeasibleError | None:
        """The error of a profile in which no worker meets a target, with the nearest one; None where all are met."""
        selection = self.selection
        if not selection.missed_targets:
            return None
        why = " ".join(self._miss_text(phase) for phase in selection.missed_targets)
        if selection.prefill_pick is None or selection.decode_pick is None:
            phases = [
                name
                for name, pick in (("prefill", selection.prefill_pick), ("decode", selection.decode_pick))
                if pick is None
            ]
            return NoFeasibleError(
                f"There is no good {' and no good '.join(phases)} point.", why=why, remedy=self._nothing_remedy()
            )
        return NoFeasibleError(
            "No profiled worker meets every target.",
            why=why,
            remedy="Loosen that target, allow more GPUs with --gpus-per-engine, or go on with --accept-nearest.",
        )

    def _nothing_remedy(self) -> str:
        """What to do about a phase without a good point."""
        points = [point for of_mapping in self.record.points.values() for point in of_mapping.values()]
        if any(isinstance(point, DecodePoint) and point.lacks_cache for point in points):
            return (
                "Start the engine with prefix caching, and so that it reports cached tokens, vLLM with "
                "--enable-prompt-tokens-details; then profile into another --output."
            )
        return f"The logs are in {self.record.path}/launches."

    def _miss_text(self, phase: str) -> str:
        request, selection = self.record.request, self.selection
        if phase == "prefill":
            prefill = selection.prefill_pick
            if prefill is None:
                return self._nothing_text("prefill")
            return (
                f"TTFT binds: the nearest prefill worker is {prefill.mapping.label} with "
                f"{1000 * prefill.point.ttft:,.1f} ms at {request.isl:,} tokens, {_excess_text(prefill.target_ratio)} "
                f"the target of {1000 * request.ttft:g} ms."
            )
        decode = selection.decode_pick
        if decode is None:
            return self._nothing_text("decode")
        requests = pluralize(decode.point.concurrency, "request")
        return (
            f"ITL binds: the nearest decode worker is {decode.mapping.label} with {1000 * decode.point.itl:,.2f} ms "
            f"at {requests} in flight, {_excess_text(decode.target_ratio)} the target of {1000 * request.itl:g} ms."
        )

    def _nothing_text(self, phase: str) -> str:
        """Why a phase has no good point: the failures of the launches, or the most common rejection."""
        points = [
            point
            for of_mapping in self.record.points.values()
            for point in of_mapping.values()
            if isinstance(point, PrefillPoint if phase == "prefill" else DecodePoint)
        ]
        rejections = [point.rejection for point in points if point.rejection is not None]
        failures = [
            f"{launch.mapping.label}: {launch.failure.message}" for launch in self.record.launches if launch.failure
        ]
        if rejections:
            return f"{phase.capitalize()} points were left out: {max(set(rejections), key=rejections.count)}."
        return f"No {phase} point was measured. {' '.join(failures)}".strip()

    def to_json(self) -> dict[str, Any]:
        """Everything decided and why, for sla.json; seconds, tokens and tokens/s."""
        record, selection = self.record, self.selection
        error = self.infeasible_error()
        return {
            "request": record.request.to_json(),
            "sources": self.sources,
            "complete": self.is_complete,
            "problems": self.profile_problems,
            "missed_targets": list(selection.missed_targets),
            "explanation": str(error) if error else None,
            "prefill": _ranking_json(selection.prefill),
            "decode": _ranking_json(selection.decode),
            "forbidden": [{"mapping": f.mapping.name, "reason": f.reason} for f in self.sweep.forbidden],
            "skipped": [{"mapping": s.mapping.name, "reason": s.reason} for s in self.sweep.skipped],
            "stopped": self.sweep.stop_reason,
            "launches": [
                {
                    **asdict(launch),
                    "mapping": launch.mapping.name,
                    "failure": asdict(launch.failure) if launch.failure else None,
                }
                for launch in record.launches
            ],
            "seconds": record.seconds,
            "gpu_hours": record.gpu_hours,
            "left_out_points": [
                {"mapping": mapping.name, **point_to_json(point)}
                for mapping, points in record.points.items()
                for point in points.values()
                if point.rejection is not None
            ],
            "leave_one_out": {"ttft": _errors_json(self.ttft_errors), "itl": _errors_json(self.itl_errors)},
            "plan": plan_json(self.plan),
        }


def _excess_text(ratio: float) -> str:
    """How far a value is above its target: `10% above`, `3.2 times`."""
    return f"{ratio - 1:.0%} above" if ratio < 2 else f"{ratio:,.1f} times"


def _ranking_json(workers: tuple[RankedWorker[Any], ...]) -> list[dict[str, Any]]:
    return [
        {
            "mapping": worker.mapping.name,
            "gpus": worker.mapping.gpus,
            "target_ratio": worker.target_ratio,
            **point_to_json(worker.point),
        }
        for worker in best_per_mapping(workers)
    ]


def _errors_json(errors: LeaveOneOut[Any]) -> dict[str, Any]:
    worst = errors.worst
    return {
        "points": len(errors.errors),
        "median": errors.median,
        "largest": abs(worst[1]) if worst else None,
        "largest_at": list(worst[0].key) if worst else None,
    }


def plan_json(plan: ServingPlan | None) -> Mapping[str, Any] | None:
    """The plan as JSON-serialisable data; None for none."""
    if plan is None:
        return None
    wait = plan.prefill_wait if plan.prefill_wait != float("inf") else None
    return {
        **asdict(plan),
        "prefill_wait": wait,
        "gpus": plan.gpus,
        "missed_targets": list(plan.missed_targets),
        "short_of_gpus": plan.is_short,
    }
