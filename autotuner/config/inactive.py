"""Parameters and values whose condition can never hold: they are no part of the search."""

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
"""Combinations looked at before a condition is taken for one that can hold."""


def remove_inactive(merged: MergedConfig, experiment: Experiment) -> list[str]:
    """Take such parameters and values out of `merged`; returns a warning for each parameter.

    ConfigError where a rule takes for true or false what is neither.
    """
    rules = Rules.from_experiment(experiment)
    rules.check_switches(experiment.parameters)
    left: dict[str, Sequence[Value]] = dict(experiment.parameters)
    warnings = []
    for name in rules.dependency_order(experiment.parameters):
        kept: list[Value] = []
        lost: list[Value] = []
        for value in left[name]:
            (kept if _can_hold(rules, name, value, left) else lost).append(value)
        if not lost:
            continue
        if kept:
            left[name] = kept
            merged.add(ONLY_WHEN_LAYER, {"parameters": {name: kept}})
        else:
            del left[name]
            merged.drop(f"parameters.{name}", emptied_by=ONLY_WHEN_LAYER)
        named = f"{name} {', '.join(map(str, lost))}" if kept else name
        warnings.append(f"{named} left out: its condition never holds here: {rules.conditions[name].text}")
    return warnings


def _can_hold(rules: Rules, name: str, value: Value, remaining: Mapping[str, Sequence[Value]]) -> bool:
    """Whether some combination of the other parameters makes the condition hold."""
    condition = rules.conditions.get(name)
    if condition is None or any(word in condition.names and rules.context[word] is None for word in CONTEXT_NAMES):
        return True
    others = sorted((condition.names & remaining.keys()) - {name})
    axes = [(*remaining[other], None) if other in rules.conditions else tuple(remaining[other]) for other in others]
    if math.prod(map(len, axes)) > MAX_COMBINATIONS:
        return True
    return any(
        condition.holds(rules.lookup({**dict(zip(others, pick, strict=True)), name: value}))
        for pick in itertools.product(*axes)
    )
