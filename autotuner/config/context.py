"""What a composition starts from, and the words layers can ask about."""

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
"""Word in `when:`, `assume:` and `{placeholders}` -> its field of the context and its path in the configuration."""

CALLER_PRIORITY_KEYS = ("model", "runtime", "deployment", "gpu", "total_gpus")
"""Words for which the context beats a profile; for the others a profile, being the later layer, wins."""


class Machine(Protocol):
    """The machine the engines will run on, asked for what neither the caller nor a layer decides."""

    def deployment(self, runtime: str, executable: str | None) -> tuple[str, str] | None:
        """Where an engine runs best here, and why; None for an engine that leaves no choice."""

    def gpus(self, runtime: str, deployment: str, indexes: Sequence[int]) -> tuple[str | None, int | None]:
        """Type and number of the GPUs an engine would find, `indexes` of them where given; None where unknown."""


@dataclass(frozen=True, kw_only=True)
class TaskContext:
    """What the caller asks for; a field left at None is for the layers to decide.

    `profiles` and `layers` (presets) are names or paths of YAML files, applied in order.
    `slo_config` is an SLO as a mapping, or the name or path of an SLO file. `user_overrides`
    is merged last (`override_mode` "patch") or takes the place of every layer ("replace").
    `machine` fills in deployment and GPUs where nothing else says them; without one the
    deployment is a process and the GPUs are unknown. `origin` is what messages call the place
    where these fields were given, such as "the command line".
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
        """Value of one of WORDS, or the profiles for "profile"; None where it is not known."""
        return self.profiles if key == "profile" else getattr(self, CONTEXT_KEYS[key][0])
