"""The candidates a run may choose from: every combination of values that can work."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from autotuner.core import Candidate, Value
from autotuner.rules import Rules

MAX_ENUMERATED = 20_000
"""Larger spaces are thinned by a seeded sample, so that planning stays instant."""


def no_refusal(candidate: Candidate) -> str | None:
    """Refuse nothing."""
    return None


Assignment = Mapping[str, Value]
"""Values of some of the parameters; those that are not there do not exist beside them."""


@dataclass(frozen=True)
class Space:
    """A runtime, the values each of its parameters may take, and the rules between them.

    `refuse` gives the reason a combination cannot run, or None; combinations that are refused, or
    break a constraint, are never asked for. `total` counts all combinations before that; where very
    many are tied together, it counts those without the conditions too.
    """

    runtime: str
    parameters: Mapping[str, Sequence[Value]]
    engine_refusal: Callable[[Candidate], str | None] = no_refusal
    rules: Rules = field(default_factory=Rules)
    candidates: tuple[Candidate, ...] = field(init=False)
    refusals: tuple[tuple[Candidate, str], ...] = field(init=False)
    combination_count: int = field(init=False)

    def __post_init__(self) -> None:
        groups = [
            ParameterGroup.from_rules(names, self.parameters, self.rules)
            for names in self.rules.coupled_groups(list(self.parameters))
        ]
        total = math.prod(group.combination_count for group in groups)
        found = self._all_candidates(groups) if total <= MAX_ENUMERATED else self._sampled_candidates(groups)
        kept: list[Candidate] = []
        refused: list[tuple[Candidate, str]] = []
        for candidate in dict.fromkeys(found):
            reason = self.refusal_reason(candidate)
            if reason is None:
                kept.append(candidate)
            else:
                refused.append((candidate, reason))
        object.__setattr__(self, "candidates", tuple(kept))
        object.__setattr__(self, "refusals", tuple(refused))
        object.__setattr__(self, "combination_count", total)

    def refusal_reason(self, candidate: Candidate) -> str | None:
        """Why a candidate is not asked for: the constraint it breaks, or why it cannot run; None where it can be."""
        return self.rules.violation(candidate.parameters) or self.engine_refusal(candidate)

    def _all_candidates(self, groups: Sequence[ParameterGroup]) -> list[Candidate]:
        """Every combination, as if the last parameter changed first; a value that is not there is before all others."""
        found = [self._merged_candidate(pick) for pick in itertools.product(*(group.assignments for group in groups))]
        if len(groups) == len(self.parameters):
            return found
        places = {
            name: {json.dumps(value): place for place, value in enumerate(_distinct_values(values))}
            for name, values in self.parameters.items()
        }

        def place(candidate: Candidate) -> tuple[int, ...]:
            given = candidate.parameters
            return tuple(places[name][json.dumps(given[name])] if name in given else -1 for name in places)

        return sorted(found, key=place)

    def _sampled_candidates(self, groups: Sequence[ParameterGroup]) -> Iterator[Candidate]:
        """A sample of what breaks no constraint, then one combination with each setting that does."""
        draw = random.Random(0)
        good: list[list[Assignment]] = [[] for _ in groups]
        bad: list[tuple[int, Assignment]] = []
        for position, group in enumerate(groups):
            for setting in group.assignments:
                if group.rules.violation(setting) is None:
                    good[position].append(setting)
                else:
                    bad.append((position, setting))
        if all(good):
            for _ in range(MAX_ENUMERATED):
                yield self._merged_candidate([draw.choice(settings) for settings in good])
        for position, setting in bad:
            others = [draw.choice(group.assignments) for group in groups]
            yield self._merged_candidate([*others[:position], setting, *others[position + 1 :]])

    def _merged_candidate(self, assignments: Iterable[Assignment]) -> Candidate:
        given = {name: value for setting in assignments for name, value in setting.items()}
        return Candidate(self.runtime, {name: given[name] for name in self.parameters if name in given})


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that rules tie together, with the combinations of their values; `rules` are those within it."""

    assignments: Sequence[Assignment]
    combination_count: int
    rules: Rules

    @classmethod
    def from_rules(
        cls, names: Sequence[str], parameters: Mapping[str, Sequence[Value]], rules: Rules
    ) -> ParameterGroup:
        """All combinations, or a seeded sample of very many."""
        values = {name: _distinct_values(parameters[name]) for name in names}
        within = rules.restricted_to(names, parameters)
        found = list(itertools.islice(_extensions(values, within, {}), MAX_ENUMERATED + 1))
        if len(found) <= MAX_ENUMERATED:
            return cls(found, len(found), within)
        draw = random.Random(0)
        drawn = [next(_extensions(values, within, {}, lambda some: [draw.choice(some)])) for _ in range(MAX_ENUMERATED)]
        return cls(drawn, math.prod(map(len, values.values())), within)


def _extensions(
    values: Mapping[str, Sequence[Value]],
    rules: Rules,
    assignment: Assignment,
    select: Callable[[Sequence[Value]], Iterable[Value]] = iter,
) -> Iterator[Assignment]:
    """What `given` can be extended to, by the values that `pick` takes of those each parameter can have."""
    if len(values) == 0:
        yield assignment
        return
    name, *others = values
    rest = {other: values[other] for other in others}
    allowed = rules.allowed_values(name, values[name], assignment)
    if values[name] and not allowed:
        yield from _extensions(rest, rules, assignment, select)
        return
    for value in select(allowed):
        yield from _extensions(rest, rules, {**assignment, name: value}, select)


def _distinct_values(values: Sequence[Value]) -> list[Value]:
    """The values without those that a candidate cannot tell apart; 1 and True are two."""
    return list({json.dumps(value): value for value in values}.values())
