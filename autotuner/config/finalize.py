"""Last steps of a composition: expands ranges, reads traces, drops an endpoint's parameters, applies the GPU limit."""

from __future__ import annotations

import math
from collections.abc import Mapping

from autotuner import traces
from autotuner.config import ranges
from autotuner.config.context import TaskContext
from autotuner.config.merging import ATOMIC_SECTIONS, MergedConfig, value_at
from autotuner.errors import ConfigError
from autotuner.experiment import IMAGE_MODES, STATISTICS, TRACE_RATE
from autotuner.traces import TIME_UNITS

MAX_PARAMETERS = 1_000
"""More than any engine has flags; Linux limits the length of a command."""

GPU_LIMIT_LAYER = "gpu-limit"
_ATOMIC_PREFIXES = tuple(f"{section}." for section in ATOMIC_SECTIONS)
TRACE_ARRIVAL = "trace"
TRACE_PREFIX = "file:"


def finalize(merged: MergedConfig, context: TaskContext) -> list[str]:
    """Apply the last steps to `merged` in place; returns warnings."""
    _remove_nulls(merged)
    _read_traces(merged)
    parameters = merged.data.get("parameters")
    if not isinstance(parameters, dict):
        return []
    if len(parameters) > MAX_PARAMETERS:
        raise ConfigError(
            f"The configuration has {len(parameters):,} parameters.",
            why=f"A candidate has at most {MAX_PARAMETERS:,}, or its command could not be started.",
            remedy="Take those out that need not be tried.",
        )
    for name, values in parameters.items():
        try:
            parameters[name] = ranges.expand_values(values)
        except ValueError as error:
            raise ConfigError(
                f"parameters.{name}: {error}.",
                why=f"It comes from {merged.origin(f'parameters.{name}')}.",
                remedy=f"A range is written like {ranges.EXAMPLES}.",
            ) from error
        if not parameters[name]:
            raise ConfigError(
                f"parameters.{name} is an empty list.",
                why=f"It comes from {merged.origin(f'parameters.{name}')}, and leaves nothing to try.",
                remedy=f"Give it a value, or take it out with --set parameters.{name}=null.",
            )
    return [*_drop_external_parameters(merged), *_limit_gpus(merged, context)]


def check_deployment(merged: MergedConfig) -> None:
    """Refuse a container without an image and external without a URL."""
    deployment = merged.data.get("deployment") or {}
    mode = deployment.get("mode") if isinstance(deployment, Mapping) else None
    runtime = merged.data.get("runtime") or {}
    if mode in IMAGE_MODES and not (isinstance(runtime, Mapping) and runtime.get("image")):
        raise ConfigError(
            f"Deployment {mode} is missing runtime.image.",
            why=f"No layer in use gives one for runtime '{merged.data.get('base_runtime')}'.",
            remedy="Use --deployment process, or --set runtime.image=NAME:TAG.",
        )
    if mode == "external" and not deployment.get("url"):
        raise ConfigError(
            "Deployment external is missing deployment.url.",
            why="Nothing is launched, so the endpoint must be named.",
            remedy="Give --url http://HOST:PORT, or --set deployment.url=http://HOST:PORT.",
        )


def _remove_nulls(merged: MergedConfig) -> None:
    """Remove null parameters, rules and SLO terms: with null a later layer unsets what an earlier one set."""
    sections = ("only_when", "constraints", "slo")
    for path in [
        path for path in merged.provenance if path in sections or path.startswith((*_ATOMIC_PREFIXES, "slo."))
    ]:
        keys = path.split(".")
        is_removable = path.startswith(_ATOMIC_PREFIXES) or len(keys) <= 2 or (len(keys) == 3 and keys[2] in STATISTICS)
        if is_removable and value_at(merged.data, path) is None:
            merged.drop(path)


def _read_traces(merged: MergedConfig) -> None:
    """Where a trace is replayed at its own rate, record its size in the configuration, and so in the run folder."""
    load = merged.data.get("benchmark")
    rates, names = (value_at(merged.data, f"benchmark.{key}") for key in ("request_rates", "traffic_scenarios"))
    if not isinstance(load, Mapping) or not isinstance(rates, list) or TRACE_RATE not in rates:
        return
    arrival = load.get("arrival", TRACE_ARRIVAL)
    if arrival != TRACE_ARRIVAL:
        raise ConfigError(
            f"A trace is replayed as it was recorded, or with the arrival '{arrival}'.",
            why=f"request_rates names the trace's own (from {merged.origin('benchmark.request_rates')}), and "
            f"arrival is '{arrival}' (from {merged.origin('benchmark.arrival')}).",
            remedy="Leave the arrival out, or give a number of requests per second.",
        )
    if isinstance(names, list):
        recorded = [_trace_size(name, load.get("trace_time_unit"), load.get("trace_scale", 1.0)) for name in names]
        merged.add(TRACE_ARRIVAL, {"benchmark": {"arrival": TRACE_ARRIVAL, "recorded": recorded}})


def _trace_size(name: object, time_unit: object, scale: object) -> dict[str, float]:
    """The requests of a trace, and its seconds when it is replayed `scale` times as fast."""
    if not isinstance(name, str) or not name.startswith(TRACE_PREFIX):
        raise ConfigError(
            f"Scenario '{name}' has no times to replay.",
            why="The request rate 'trace' is that of a recorded trace.",
            remedy="Use a scenario file:PATH, or give a number of requests per second.",
        )
    recording = traces.read_trace(name.removeprefix(TRACE_PREFIX))
    seconds = recording.seconds_in(time_unit) if time_unit in TIME_UNITS else recording.seconds
    if isinstance(scale, int | float) and 0 < scale < math.inf:  # the schema refuses others
        seconds /= scale
    return {"requests": len(recording.request_lengths), "seconds": seconds}


def _drop_external_parameters(merged: MergedConfig) -> list[str]:
    """Drop all parameters of an external endpoint: a server that runs already cannot be reconfigured."""
    deployment = merged.data.get("deployment")
    if not isinstance(deployment, Mapping) or deployment.get("mode") != "external":
        return []
    names = ", ".join(merged.data["parameters"])
    for path in [path for path in merged.provenance if path.startswith(_ATOMIC_PREFIXES)]:
        merged.drop(path, emptied_by="external-defaults")
    if not names:
        return []
    return [f"deployment external: the server runs already, so these parameters are not tried: {names}"]


def _limit_gpus(merged: MergedConfig, context: TaskContext) -> list[str]:
    """Keep the tp-size values that fit the GPUs; if none does, use the largest power of two that fits."""
    overlay: dict[str, object] = {}
    hardware = merged.data.get("hardware", {})
    if not isinstance(hardware, Mapping):
        return []
    total, gpu_indexes = context.total_gpus, hardware.get("gpus")
    limits = [total] if isinstance(total, int) and total > 0 else []
    if total is not None and hardware.get("total_gpus") != total:
        overlay["hardware"] = {"total_gpus": total}
    if isinstance(gpu_indexes, list) and gpu_indexes:
        limits.append(len(gpu_indexes))
    warnings: list[str] = []
    if limits:
        sizes = merged.data["parameters"].get("tp-size", [])
        kept, warnings = _sizes_within(sizes, min(limits))
        if kept != sizes:
            overlay["parameters"] = {"tp-size": kept}
    if overlay:
        merged.add(GPU_LIMIT_LAYER, overlay)
    return warnings


def _sizes_within(sizes: list[object], limit: int) -> tuple[list[object], list[str]]:
    """The sizes to try on at most `limit` GPUs, and a warning if they changed."""
    kept = [size for size in sizes if not isinstance(size, int) or size <= limit]
    if kept == sizes:
        return sizes, []
    gpus = "GPU" if limit == 1 else "GPUs"
    if not kept:
        nearest: list[object] = [2 ** (limit.bit_length() - 1)]
        return nearest, [f"tp-size {sizes} is above the {limit} {gpus} allowed: {nearest} is tried instead"]
    dropped = ", ".join(str(size) for size in sizes if size not in kept)
    return kept, [f"tp-size {dropped} dropped: there {'is' if limit == 1 else 'are'} {limit} {gpus}"]
