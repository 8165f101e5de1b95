"""The caller's request, from which a composition starts, and the keys that conditions of layers test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

CONTEXT_KEYS: dict[str, tuple[str, str]] = {
    "model": ("model_name", "model.id_or_path"),
    "runtime": ("base_runtime", "base_runtime"),
    "deployment": ("deployment_mode", "deployment.mode"),
    "gpu": ("gpu_type", "hardware.gpu_type"),
    "total_gpus": ("total_gpus", "hardware.total_gpus"),
    "task": ("benchmark_task", "benchmark.task"),
    "strategy": ("optimization_strategy", "optimization.strategy"),
    "objective": ("optimization_objective", "optimization.objective"),
    "scenarios": ("traffic_scenarios", "benchmark.traffic_scenarios"),
    "concurrency": ("num_concurrency", "benchmark.num_concurrency"),
}
"""Key in `when:`, `assume:` and `{placeholders}` -> (field of the context, dotted path in the configuration)."""

CALLER_PRIORITY_KEYS = ("model", "runtime", "deployment", "gpu", "total_gpus")
"""Keys whose value in the context beats a profile's; for the others the profile, being the later layer, wins."""


class Machine(Protocol):
    """The machine that the engines run on: supplies what neither the caller nor a layer decides."""

    def deployment(self, runtime: str, executable: str | None) -> tuple[str, str] | None:
        """(Deployment mode, reason) that suits an engine here; None for an engine that leaves no choice."""

    def gpus(self, runtime: str, deployment: str, indexes: Sequence[int]) -> tuple[str | None, int | None]:
        """(Type, number) of the GPUs visible to an engine, only `indexes` of them where given; None where unknown."""


@dataclass(frozen=True, kw_only=True)
class TaskContext:
    """The caller's request; the layers decide a field that is None.

    `profiles` and `layers` (presets) are names or paths of YAML files, applied in order.
    `slo_config` is an SLO as a mapping, or the name or path of an SLO file. `user_overrides`
    is merged last (`override_mode` "patch") or takes the place of every layer ("replace").
    `machine` fills in deployment and GPUs where nothing else sets them; without one the
    deployment is a process and the GPUs are unknown. `origin` names the place where these fields
    were given in messages, such as "the command line".
    """

    model_name: str | None = None
    base_runtime: str | None = None
    deployment_mode: str | None = None
    benchmark_task: str | None = None
    traffic_scenarios: Sequence[str] | None = None
    num_concurrency: Sequence[int] | None = None
    optimization_strategy: str | None = None
    optimization_objective: str | None = None
    profiles: Sequence[str] = ()
    user_overrides: Mapping[str, Any] | None = None
    override_mode: Literal["patch", "replace"] = "patch"
    slo_config: Mapping[str, Any] | str | None = None
    gpu_type: str | None = None
    total_gpus: int | None = None
    layers: Sequence[str] = ()
    allow_unknown_profiles: bool = False
    machine: Machine | None = None
    origin: str = ""

    @property
    def replaces_layers(self) -> bool:
        """Whether the overrides take the place of every layer."""
        return self.override_mode == "replace" and self.user_overrides is not None

    def value(self, key: str) -> Any:
        """Value of one of CONTEXT_KEYS, or the profiles for "profile"; None if unknown."""
        return self.profiles if key == "profile" else getattr(self, CONTEXT_KEYS[key][0])
