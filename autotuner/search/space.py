"""The search space: every combination of parameter values that the rules and the engine allow."""

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
"""Larger spaces are sampled with a fixed seed; chosen by hand, so that planning stays instant."""


def no_refusal(candidate: Candidate) -> str | None:
    return None


Assignment = Mapping[str, Value]
"""Parameter -> value; a parameter that is missing does not exist in the presence of the others."""


@dataclass(frozen=True)
class Space:
    """A runtime, the values each of its parameters may take, and the rules between them.

    `engine_refusal` returns why a combination cannot run, or None. Combinations that it refuses, or that break a
    constraint, are `refusals` and never launched. `combination_count` counts all combinations before that; in
    groups above MAX_ENUMERATED it ignores conditions.
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
        count = math.prod(group.combination_count for group in groups)
        combinations = self._all_candidates(groups) if count <= MAX_ENUMERATED else self._sampled_candidates(groups)
        candidates: list[Candidate] = []
        refusals: list[tuple[Candidate, str]] = []
        for candidate in dict.fromkeys(combinations):
            reason = self.refusal_reason(candidate)
            if reason is None:
                candidates.append(candidate)
            else:
                refusals.append((candidate, reason))
        object.__setattr__(self, "candidates", tuple(candidates))
        object.__setattr__(self, "refusals", tuple(refusals))
        object.__setattr__(self, "combination_count", count)

    def refusal_reason(self, candidate: Candidate) -> str | None:
        """The constraint that a candidate breaks, or why the engine cannot run it; None if it can be launched."""
        return self.rules.violation(candidate.parameters) or self.engine_refusal(candidate)

    def _all_candidates(self, groups: Sequence[ParameterGroup]) -> list[Candidate]:
        """Every combination in lexicographic order of its values' indices; a missing value comes first."""
        products = itertools.product(*(group.assignments for group in groups))
        candidates = [self._merged_candidate(assignments) for assignments in products]
        if len(groups) == len(self.parameters):
            return candidates
        indices = {
            name: {json.dumps(value): index for index, value in enumerate(_distinct_values(values))}
            for name, values in self.parameters.items()
        }

        def sort_key(candidate: Candidate) -> tuple[int, ...]:
            values = candidate.parameters
            return tuple(indices[name][json.dumps(values[name])] if name in values else -1 for name in indices)

        return sorted(candidates, key=sort_key)

    def _sampled_candidates(self, groups: Sequence[ParameterGroup]) -> Iterator[Candidate]:
        """A sample of the combinations that break no constraint, then one for each assignment that breaks one."""
        rng = random.Random(0)
        valid: list[list[Assignment]] = [[] for _ in groups]
        violating: list[tuple[int, Assignment]] = []
        for index, group in enumerate(groups):
            for assignment in group.assignments:
                if group.rules.violation(assignment) is None:
                    valid[index].append(assignment)
                else:
                    violating.append((index, assignment))
        if all(valid):
            for _ in range(MAX_ENUMERATED):
                yield self._merged_candidate([rng.choice(assignments) for assignments in valid])
        for index, assignment in violating:
            others = [rng.choice(group.assignments) for group in groups]
            yield self._merged_candidate([*others[:index], assignment, *others[index + 1 :]])

    def _merged_candidate(self, assignments: Iterable[Assignment]) -> Candidate:
        values = {name: value for assignment in assignments for name, value in assignment.items()}
        return Candidate(self.runtime, {name: values[name] for name in self.parameters if name in values})


@dataclass(frozen=True)
class ParameterGroup:
    """The allowed combinations of parameters that rules couple, and the rules among them."""

    assignments: Sequence[Assignment]
    combination_count: int
    rules: Rules

    @classmethod
    def from_rules(
        cls, names: Sequence[str], parameters: Mapping[str, Sequence[Value]], rules: Rules
    ) -> ParameterGroup:
        """All combinations of the named parameters, or a seeded sample of MAX_ENUMERATED of them."""
        values = {name: tuple(_distinct_values(parameters[name])) for name in names}
        rules = rules.restricted_to(names, parameters)
        assignments = list(itertools.islice(_extensions(values, rules, {}), MAX_ENUMERATED + 1))
        if len(assignments) <= MAX_ENUMERATED:
            return cls(assignments, len(assignments), rules)
        rng = random.Random(0)

        def select(allowed: Sequence[Value]) -> list[Value]:
            return [rng.choice(allowed)]

        sample = [next(_extensions(values, rules, {}, select)) for _ in range(MAX_ENUMERATED)]
        return cls(sample, math.prod(map(len, values.values())), rules)


def _extensions(
    values: Mapping[str, Sequence[Value]],
    rules: Rules,
    assignment: Assignment,
    select: Callable[[Sequence[Value]], Iterable[Value]] = iter,
) -> Iterator[Assignment]:
    """Every way to extend `assignment` by the parameters of `values`, with those allowed values that `select` picks.

    A parameter none of whose values is allowed is left out.
    """
    if len(values) == 0:
        yield assignment
        return
    name, *others = values
    remaining = {other: values[other] for other in others}
    allowed = rules.allowed_values(name, values[name], assignment)
    if values[name] and not allowed:
        yield from _extensions(remaining, rules, assignment, select)
        return
    for value in select(allowed):
        yield from _extensions(remaining, rules, {**assignment, name: value}, select)


def _distinct_values(values: Sequence[Value]) -> list[Value]:
    """The values without duplicates; unlike in Python, 1 and True are distinct."""
    return list({json.dumps(value): value for value in values}.values())
