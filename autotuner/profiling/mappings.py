"""Parallel mappings of a worker: over which GPUs its layers and experts are spread, and which mappings cannot run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from autotuner.core import Candidate, Value
from autotuner.predict.shape import ModelShape

MappingKind = Literal["tp", "tep", "dep"]

KIND_NAMES: Mapping[MappingKind, str] = {
    "tp": "tensor parallel",
    "tep": "tensor-parallel attention, expert-parallel experts",
    "dep": "data-parallel attention, expert-parallel experts",
}


@dataclass(frozen=True)
class ParallelMapping:
    """One way to spread a worker over `gpus` GPUs."""

    kind: MappingKind
    gpus: int

    @property
    def name(self) -> str:
        """The name in folders, such as 4gpus_tp4."""
        return f"{self.gpus}gpus_{self.kind}{self.gpus}"

    @property
    def label(self) -> str:
        """The name in tables, such as TP4."""
        return f"{self.kind.upper()}{self.gpus}"

    @property
    def attention_dp(self) -> int:
        """Replicas of the attention layers, each of which takes requests of its own."""
        return self.gpus if self.kind == "dep" else 1

    def parameters(self, runtime: str) -> dict[str, Value]:
        """The engine parameters of the mapping, by autotune's names."""
        if self.kind == "tp":
            return {"tp-size": self.gpus}
        if self.kind == "tep":
            return {"tp-size": self.gpus, "ep-size": self.gpus}
        if runtime == "sglang":
            return {"tp-size": self.gpus, "dp-size": self.gpus, "ep-size": self.gpus, "enable-dp-attention": True}
        return {"tp-size": 1, "dp-size": self.gpus, "ep-size": self.gpus}

    def candidate(self, runtime: str, base_parameters: Mapping[str, Value]) -> Candidate:
        """The launch of the mapping with the other parameters of `base_parameters`."""
        return Candidate(runtime, {**base_parameters, **self.parameters(runtime)})


def possible_mappings(shape: ModelShape | None, runtime: str, gpu_counts: Sequence[int]) -> list[ParallelMapping]:
    """The mappings worth a launch: TP of each count, and of mixture-of-experts models TEP and DEP of more than one GPU.

    The simulated engine and TensorRT-LLM have no data-parallel attention on their command lines.
    """
    mappings = [ParallelMapping("tp", gpus) for gpus in gpu_counts]
    if shape is None or not shape.experts or runtime == "sim":
        return mappings
    mappings += [ParallelMapping("tep", gpus) for gpus in gpu_counts if gpus > 1]
    if runtime != "trtllm":
        mappings += [ParallelMapping("dep", gpus) for gpus in gpu_counts if gpus > 1]
    return mappings


def mapping_named(name: str) -> ParallelMapping:
    """The mapping of `ParallelMapping.name`; ValueError for another text."""
    count, _, layout = name.partition("gpus_")
    kind = next((kind for kind in KIND_NAMES if layout == f"{kind}{count}"), None)
    if kind is None or not count.isdigit():
        raise ValueError(f"'{name}' is no mapping")
    return ParallelMapping(kind, int(count))


@dataclass(frozen=True)
class ForbiddenMapping:
    """A mapping that is never started, and why."""

    mapping: ParallelMapping
    reason: str


def divide_by_feasibility(
    mappings: Sequence[ParallelMapping], rejection_reason: Callable[[ParallelMapping], str | None]
) -> tuple[list[ParallelMapping], list[ForbiddenMapping]]:
    """The mappings that may start, and those that memory or divisibility forbid."""
    allowed, forbidden = list[ParallelMapping](), list[ForbiddenMapping]()
    for mapping in mappings:
        reason = rejection_reason(mapping)
        if reason is None:
            allowed.append(mapping)
        else:
            forbidden.append(ForbiddenMapping(mapping, reason))
    return allowed, forbidden
