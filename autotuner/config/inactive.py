"""Parameters and values whose condition can never hold: they are no part of the search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from autotuner.config.merging import Merged
from autotuner.core import Value
from autotuner.experiment import Experiment
from autotuner.rules import WORDS, Rules

ONLY_WHEN = "only-when"
LOOKED_AT = 10_000
"""Combinations looked at before a condition is taken for one that can hold."""


def leave_out(merged: Merged, experiment: Experiment) -> list[str]:
    """Take such parameters and values out of `merged`; returns a warning for each parameter.

    ConfigError where a rule takes for true or false what is neither.
    """
    rules = Rules.of(experiment)
    rules.check_switches(experiment.parameters)
    left: dict[str, Sequence[Value]] = dict(experiment.parameters)
    warnings = []
    for name in rules.ordered(experiment.parameters):
        kept: list[Value] = []
        lost: list[Value] = []
        for value in left[name]:
            (kept if _possible(rules, name, value, left) else lost).append(value)
        if not lost:
            continue
        if kept:
            left[name] = kept
            merged.add(ONLY_WHEN, {"parameters": {name: kept}})
        else:
            del left[name]
            merged.drop(f"parameters.{name}", emptied_by=ONLY_WHEN)
        named = f"{name} {', '.join(map(str, lost))}" if kept else name
        warnings.append(f"{named} left out: its condition never holds here: {rules.conditions[name].text}")
    return warnings


def _possible(rules: Rules, name: str, value: Value, left: Mapping[str, Sequence[Value]]) -> bool:
    """Whether some combination of the other parameters makes the condition hold."""
    condition = rules.conditions.get(name)
    if condition is None or any(word in condition.names and rules.words[word] is None for word in WORDS):
        return True
    others = sorted((condition.names & left.keys()) - {name})
    axes = [(*left[other], None) if other in rules.conditions else tuple(left[other]) for other in others]
    if math.prod(map(len, axes)) > LOOKED_AT:
        return True
    return any(
        condition.holds(rules.look({**dict(zip(others, pick, strict=True)), name: value}))
        for pick in itertools.product(*axes)
    )
