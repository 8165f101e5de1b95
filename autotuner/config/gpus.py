"""Checks the GPU types that a configuration names against the GPU table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autotuner.config.merging import MergedConfig, value_at
from autotuner.errors import ConfigError
from autotuner.predict import hardware

if TYPE_CHECKING:
    from autotuner.config.facts import ResolvedContext

GPU_TYPE_PATH, SIMULATED_GPU_PATH = "hardware.gpu_type", "simulate.gpu"


def check_gpus(merged: MergedConfig, resolved: ResolvedContext, caller_gpu: str | None) -> list[str]:
    """Refuse a GPU type that is not in the table, suggesting the nearest name; returns warnings.

    `caller_gpu` is the type the caller gave. The simulated GPU is rewritten as the table spells it. A type
    that this machine's driver reports may be unknown: then only predictions are missing.
    """
    for section, key in (path.split(".") for path in (GPU_TYPE_PATH, SIMULATED_GPU_PATH)):
        fields = merged.data.get(section)
        if isinstance(fields, dict) and key in fields:
            fields[key] = as_gpu_name(fields[key])
    if caller_gpu is not None:
        hardware.find_gpu(caller_gpu)
    actual = value_at(merged.data, GPU_TYPE_PATH)
    if isinstance(actual, str):
        if not hardware.is_known(actual) and _is_machine_gpu(resolved, actual):
            return [
                _unknown_gpu_warning(actual, simulated=value_at(merged.data, "optimization.evaluator") == "simulated")
            ]
        _look_up(merged, GPU_TYPE_PATH, actual)
    simulated = value_at(merged.data, SIMULATED_GPU_PATH)
    if isinstance(simulated, str):
        merged.data["simulate"]["gpu"] = _look_up(merged, SIMULATED_GPU_PATH, simulated).name
    return []


def as_gpu_name(value: Any) -> Any:
    """A GPU type that YAML parsed as a number, such as 4090, as text; other values unchanged."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _look_up(merged: MergedConfig, path: str, name: str) -> hardware.GpuSpec:
    try:
        return hardware.find_gpu(name)
    except ConfigError as error:
        place = f"It is {path}, from {merged.origin(path)}."
        raise ConfigError(error.what, why=f"{error.why} {place}".strip(), remedy=error.remedy) from error


def _is_machine_gpu(resolved: ResolvedContext, name: str) -> bool:
    context = resolved.context
    if GPU_TYPE_PATH in resolved.reasons or context.machine is None:
        return GPU_TYPE_PATH in resolved.reasons
    return name == context.machine.gpus(str(context.base_runtime), str(context.deployment_mode), ())[0]


def _unknown_gpu_warning(name: str, *, simulated: bool) -> str:
    """Warning text for a GPU that is not in the table; ConfigError if it is to be simulated."""
    if simulated:
        raise ConfigError(
            f"The {name} of this machine cannot be simulated.",
            why="The GPU table does not know it.",
            remedy=f"Name another GPU with --gpu, or describe this one in {hardware.user_table_path()}.",
        )
    return (
        f"the GPU table has no {name}, which this machine has: a run measures on it, but neither memory nor speed "
        f"can be predicted; to have both, describe it in {hardware.user_table_path()}"
    )
