"""What differs between the settings and environments of two runs, and which differences forbid a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autotuner.compare.compared_run import ComparedRun
from autotuner.core import LoadPoint
from autotuner.scoring.objective import OBJECTIVES

ABSENT = "(none)"


@dataclass(frozen=True)
class Difference:
    """A setting, or a fact of the environment, with its text in both runs."""

    name: str
    baseline: str
    new: str

    def __str__(self) -> str:
        return f"{self.name}: {self.baseline} -> {self.new}"


IDENTITY_NAMES = (
    "source", "model", "revision", "tokenizer", "scenario", "load", "slo", "objective", "price", "gpu", "endpoint",
)  # fmt: skip
"""What two runs must have in common; `--allow NAME` lets one differ."""

_IRRELEVANT_KEYS = ("task_name", "description", "layers")


def incomparable(baseline: ComparedRun, new: ComparedRun) -> list[Difference]:
    """The differences that forbid a comparison of figures, by the names of IDENTITY_NAMES."""
    first, second = _identity(baseline), _identity(new)
    if first["load"] == second["load"] and _has_no_equal_load(baseline, new):
        first, second = ({**each, "load": _loads_text(run)} for each, run in ((first, baseline), (second, new)))
    return [Difference(name, first[name], second[name]) for name in IDENTITY_NAMES if first[name] != second[name]]


def common_winner_points(baseline: ComparedRun, new: ComparedRun) -> tuple[LoadPoint, ...]:
    """The load points at which both winners are ranked, in the order of the baseline's."""
    return tuple(point for point in baseline.winner_points if point in new.winner_points)


def _has_no_equal_load(baseline: ComparedRun, new: ComparedRun) -> bool:
    """Whether the objective compares at equal load, and the winners have no load point in common."""
    objective = OBJECTIVES[baseline.experiment.optimization.objective]
    both_have_points = bool(baseline.winner_points and new.winner_points)
    return objective.at_equal_load and both_have_points and not common_winner_points(baseline, new)


def _loads_text(run: ComparedRun) -> str:
    return ", ".join(map(str, run.winner_points))


def _identity(run: ComparedRun) -> dict[str, str]:
    experiment = run.experiment
    hardware, load = experiment.hardware, experiment.benchmark
    gpu_type = experiment.simulate.gpu if set(run.sources) == {"simulated"} else hardware.gpu_type
    terms = sorted(f"{term.name} {term.threshold:g}" for term in experiment.slo.terms)
    objective = OBJECTIVES[experiment.optimization.objective]
    price = hardware.price_per_gpu_hour if objective.uses_price else None
    loops = [name for name, values in (("closed", load.num_concurrency), ("open", load.request_rates)) if values]
    targets = [*terms, f"attainment {experiment.slo.attainment:g}"] if terms else []
    return {
        "source": ", ".join(run.sources) or ABSENT,
        "model": experiment.model.served_name or experiment.model.id_or_path,
        "revision": experiment.model.revision or ABSENT,
        "tokenizer": experiment.model.tokenizer or ABSENT,
        "scenario": ", ".join(load.traffic_scenarios),
        "load": f"{' and '.join(loops)} loop",
        "slo": ", ".join(targets) or ABSENT,
        "objective": objective.name,
        "price": ABSENT if price is None else f"{price} per GPU-hour",
        "gpu": f"{hardware.total_gpus} x {gpu_type}" if hardware.total_gpus else gpu_type or ABSENT,
        "endpoint": load.endpoint,
    }


def changed(baseline: ComparedRun, new: ComparedRun) -> list[Difference]:
    """What was changed from the baseline: facts of the environment, settings, and the winner's parameters."""
    environment = _differences(baseline.environment, new.environment, "")
    settings = _differences(_flat(_settings(baseline)), _flat(_settings(new)), "")
    first = baseline.winner.parameters if baseline.winner else {}
    second = new.winner.parameters if new.winner else {}
    winners = _differences(_flat(first), _flat(second), "winner's ") if baseline.winner and new.winner else []
    return [*environment, *settings, *winners]


def _settings(run: ComparedRun) -> dict[str, Any]:
    """The experiment with defaults filled in, so that a default that was written out is no difference."""
    data = run.experiment.model_dump(mode="json")
    return {key: value for key, value in data.items() if key not in _IRRELEVANT_KEYS}


def _differences(first: Mapping[str, str], second: Mapping[str, str], prefix: str) -> list[Difference]:
    names = [*first, *(name for name in second if name not in first)]
    return [
        Difference(f"{prefix}{name}", first.get(name, ABSENT), second.get(name, ABSENT))
        for name in names
        if first.get(name, ABSENT) != second.get(name, ABSENT)
    ]


def _flat(data: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings as text by dotted names; what is None or empty is left out."""
    if isinstance(data, Mapping):
        flat: dict[str, str] = {}
        for key, value in data.items():
            flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
        return flat
    if data is None or data == [] or data == "":
        return {}
    return {prefix: ", ".join(map(str, data)) if isinstance(data, list) else str(data)}
