"""The prefill and the decode worker of a profile: the most tokens/s per GPU within the targets, or the nearest miss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from autotuner.profiling.mappings import ParallelMapping
from autotuner.profiling.points import DecodePoint, PrefillPoint
from autotuner.profiling.record import ProfileRecord

Phase = Literal["prefill", "decode"]
PointType = TypeVar("PointType", PrefillPoint, DecodePoint)


@dataclass(frozen=True)
class RankedWorker(Generic[PointType]):
    """A mapping at one point, and its latency as a share of the target: at most 1 where it meets it."""

    mapping: ParallelMapping
    point: PointType
    target_ratio: float

    @property
    def meets_target(self) -> bool:
        return self.target_ratio <= 1


@dataclass(frozen=True)
class WorkerSelection:
    """The ranked workers of both phases, best first; what meets the target comes before what misses it."""

    prefill: tuple[RankedWorker[PrefillPoint], ...]
    decode: tuple[RankedWorker[DecodePoint], ...]

    @property
    def prefill_pick(self) -> RankedWorker[PrefillPoint] | None:
        """The chosen prefill worker, the nearest miss where none meets the target; None without points."""
        return self.prefill[0] if self.prefill else None

    @property
    def decode_pick(self) -> RankedWorker[DecodePoint] | None:
        """The chosen decode worker at its best number of requests; as for `prefill_pick`."""
        return self.decode[0] if self.decode else None

    @property
    def missed_targets(self) -> tuple[Phase, ...]:
        """The phases in which no worker meets the target: its latency target binds."""
        missed: list[Phase] = []
        if self.prefill_pick is None or not self.prefill_pick.meets_target:
            missed.append("prefill")
        if self.decode_pick is None or not self.decode_pick.meets_target:
            missed.append("decode")
        return tuple(missed)


def select(record: ProfileRecord) -> WorkerSelection:
    """Rank the mappings at the asked lengths: prefill at --isl, decode at every number of requests measured there."""
    request = record.request
    prefill = [
        RankedWorker(mapping, point, point.ttft / request.ttft)
        for mapping in record.points
        for point in record.prefill_points(mapping)
        if point.rejection is None and point.prompt_tokens == request.isl
    ]
    decode = [
        RankedWorker(mapping, point, point.itl / request.itl)
        for mapping in record.points
        for point in record.decode_points(mapping)
        if point.rejection is None and abs(point.context_length - request.context_length) <= 1
    ]
    return WorkerSelection(tuple(_ranked(prefill, lambda p: p.ttft)), tuple(_ranked(decode, lambda p: p.itl)))


def _ranked(
    workers: Sequence[RankedWorker[PointType]], latency: Callable[[PointType], float]
) -> list[RankedWorker[PointType]]:
    return sorted(
        workers,
        key=lambda worker: (
            (0, -worker.point.throughput_per_gpu) if worker.meets_target else (1, worker.target_ratio),
            worker.mapping.gpus,
            latency(worker.point),
        ),
    )


def best_per_mapping(workers: Sequence[RankedWorker[PointType]]) -> list[RankedWorker[PointType]]:
    """Each mapping at its best point, in the order of the ranking."""
    best: dict[ParallelMapping, RankedWorker[PointType]] = {}
    for worker in workers:
        best.setdefault(worker.mapping, worker)
    return list(best.values())
