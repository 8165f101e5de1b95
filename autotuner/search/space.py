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

ENUMERATED_AT_MOST = 20_000
"""Larger spaces are thinned by a seeded sample, so that planning stays instant."""


def never(candidate: Candidate) -> str | None:
    """Refuse nothing."""
    return None


Setting = Mapping[str, Value]
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
    refuse: Callable[[Candidate], str | None] = never
    rules: Rules = field(default_factory=Rules)
    candidates: tuple[Candidate, ...] = field(init=False)
    refused: tuple[tuple[Candidate, str], ...] = field(init=False)
    total: int = field(init=False)

    def __post_init__(self) -> None:
        groups = [Group.of(names, self.parameters, self.rules) for names in self.rules.groups(list(self.parameters))]
        total = math.prod(group.total for group in groups)
        found = self._all(groups) if total <= ENUMERATED_AT_MOST else self._drawn(groups)
        kept: list[Candidate] = []
        refused: list[tuple[Candidate, str]] = []
        for candidate in dict.fromkeys(found):
            reason = self.reason_against(candidate)
            if reason is None:
                kept.append(candidate)
            else:
                refused.append((candidate, reason))
        object.__setattr__(self, "candidates", tuple(kept))
        object.__setattr__(self, "refused", tuple(refused))
        object.__setattr__(self, "total", total)

    def reason_against(self, candidate: Candidate) -> str | None:
        """Why a candidate is not asked for: the constraint it breaks, or why it cannot run; None where it can be."""
        return self.rules.broken(candidate.parameters) or self.refuse(candidate)

    def _all(self, groups: Sequence[Group]) -> list[Candidate]:
        """Every combination, as if the last parameter changed first; a value that is not there is before all others."""
        found = [self._candidate(pick) for pick in itertools.product(*(group.settings for group in groups))]
        if len(groups) == len(self.parameters):
            return found
        places = {
            name: {json.dumps(value): place for place, value in enumerate(_distinct(values))}
            for name, values in self.parameters.items()
        }

        def place(candidate: Candidate) -> tuple[int, ...]:
            given = candidate.parameters
            return tuple(places[name][json.dumps(given[name])] if name in given else -1 for name in places)

        return sorted(found, key=place)

    def _drawn(self, groups: Sequence[Group]) -> Iterator[Candidate]:
        """A sample of what breaks no constraint, then one combination with each setting that does."""
        draw = random.Random(0)
        good: list[list[Setting]] = [[] for _ in groups]
        bad: list[tuple[int, Setting]] = []
        for position, group in enumerate(groups):
            for setting in group.settings:
                if group.rules.broken(setting) is None:
                    good[position].append(setting)
                else:
                    bad.append((position, setting))
        if all(good):
            for _ in range(ENUMERATED_AT_MOST):
                yield self._candidate([draw.choice(settings) for settings in good])
        for position, setting in bad:
            others = [draw.choice(group.settings) for group in groups]
            yield self._candidate([*others[:position], setting, *others[position + 1 :]])

    def _candidate(self, pick: Iterable[Setting]) -> Candidate:
        given = {name: value for setting in pick for name, value in setting.items()}
        return Candidate(self.runtime, {name: given[name] for name in self.parameters if name in given})


@dataclass(frozen=True)
class Group:
    """Parameters that rules tie together, with the combinations of their values; `rules` are those within it."""

    settings: Sequence[Setting]
    total: int
    rules: Rules

    @classmethod
    def of(cls, names: Sequence[str], parameters: Mapping[str, Sequence[Value]], rules: Rules) -> Group:
        """All combinations, or a seeded sample of very many."""
        values = {name: _distinct(parameters[name]) for name in names}
        within = rules.within(names, parameters)
        found = list(itertools.islice(_combinations(values, within, {}), ENUMERATED_AT_MOST + 1))
        if len(found) <= ENUMERATED_AT_MOST:
            return cls(found, len(found), within)
        draw = random.Random(0)
        drawn = [
            next(_combinations(values, within, {}, lambda some: [draw.choice(some)])) for _ in range(ENUMERATED_AT_MOST)
        ]
        return cls(drawn, math.prod(map(len, values.values())), within)


def _combinations(
    values: Mapping[str, Sequence[Value]],
    rules: Rules,
    given: Setting,
    pick: Callable[[Sequence[Value]], Iterable[Value]] = iter,
) -> Iterator[Setting]:
    """What `given` can be extended to, by the values that `pick` takes of those each parameter can have."""
    if len(values) == 0:
        yield given
        return
    name, *others = values
    rest = {other: values[other] for other in others}
    allowed = rules.allowed(name, values[name], given)
    if values[name] and not allowed:
        yield from _combinations(rest, rules, given, pick)
        return
    for value in pick(allowed):
        yield from _combinations(rest, rules, {**given, name: value}, pick)


def _distinct(values: Sequence[Value]) -> list[Value]:
    """The values without those that a candidate cannot tell apart; 1 and True are two."""
    return list({json.dumps(value): value for value in values}.values())
