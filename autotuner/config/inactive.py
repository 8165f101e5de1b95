"""Removes parameters and values whose condition can never hold from the search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from autotuner.config.merging import MergedConfig
from autotuner.core import Value
from autotuner.experiment import Experiment
from autotuner.rules import CONTEXT_NAMES, Rules

ONLY_WHEN_LAYER = "only-when"
MAX_COMBINATIONS = 10_000
"""Combinations enumerated; with more, a condition is assumed to be satisfiable."""


def remove_inactive(merged: MergedConfig, experiment: Experiment) -> list[str]:
    """Remove parameters and values whose condition can never hold; returns a warning for each parameter.

    ConfigError if a rule uses a parameter that is not a boolean as one.
    """
    rules = Rules.from_experiment(experiment)
    rules.check_switches(experiment.parameters)
    remaining: dict[str, Sequence[Value]] = dict(experiment.parameters)
    warnings = []
    for name in rules.dependency_order(experiment.parameters):
        kept: list[Value] = []
        dropped: list[Value] = []
        for value in remaining[name]:
            (kept if _can_hold(rules, name, value, remaining) else dropped).append(value)
        if not dropped:
            continue
        if kept:
            remaining[name] = kept
            merged.add(ONLY_WHEN_LAYER, {"parameters": {name: kept}})
        else:
            del remaining[name]
            merged.drop(f"parameters.{name}", emptied_by=ONLY_WHEN_LAYER)
        label = f"{name} {', '.join(map(str, dropped))}" if kept else name
        warnings.append(f"{label} dropped: its condition never holds here: {rules.conditions[name].text}")
    return warnings


def _can_hold(rules: Rules, name: str, value: Value, remaining: Mapping[str, Sequence[Value]]) -> bool:
    """Whether some combination of the other parameters satisfies the condition of `name`."""
    condition = rules.conditions.get(name)
    if condition is None or any(key in condition.names and rules.context[key] is None for key in CONTEXT_NAMES):
        return True
    others = sorted((condition.names & remaining.keys()) - {name})
    value_lists = [
        (*remaining[other], None) if other in rules.conditions else tuple(remaining[other]) for other in others
    ]
    if math.prod(map(len, value_lists)) > MAX_COMBINATIONS:
        return True
    return any(
        condition.holds(rules.lookup({**dict(zip(others, combination, strict=True)), name: value}))
        for combination in itertools.product(*value_lists)
    )
