"""Grid search: every candidate, or an even spread of them when launches are limited."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence

from autotuner.core import Candidate
from autotuner.search.listed import ListedCandidates
from autotuner.search.problem import Problem

MAX_CONSIDERED = 2_000
ABSENT = object()
"""The value of a parameter that a candidate lacks."""


class GridSearch(ListedCandidates):
    """Walks the space in its own order; under a limit, walks a spread that covers every value first."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(
            balanced_subset(problem.space.candidates, problem.max_launches, problem.seed), len(problem.space.candidates)
        )


def balanced_subset(candidates: Sequence[Candidate], limit: int, seed: int) -> tuple[Candidate, ...]:
    """Choose `limit` candidates in which every value, then every pair of values, occurs evenly.

    A cut from the head of a grid would lose whole values of its slowest axis. The choice keeps
    the grid's own order.
    """
    if len(candidates) <= limit:
        return tuple(candidates)
    order = {candidate: position for position, candidate in enumerate(candidates)}
    return tuple(sorted(balanced_order(candidates, limit, seed), key=order.__getitem__))


def balanced_order(candidates: Sequence[Candidate], limit: int, seed: int) -> tuple[Candidate, ...]:
    """`limit` candidates in an order in which every value, then every pair of values, soon occurs evenly."""
    pool = list(candidates)
    if len(pool) > MAX_CONSIDERED:
        pool = random.Random(seed).sample(pool, MAX_CONSIDERED)
    # that a parameter is not there counts as a value, or what has few parameters would come first
    names = list(dict.fromkeys(name for candidate in pool for name in candidate.parameters))
    singles = [tuple((name, candidate.parameters.get(name, ABSENT)) for name in names) for candidate in pool]
    pairs = [tuple(itertools.combinations(items, 2)) for items in singles]
    seen: Counter[object] = Counter()
    left = list(range(len(pool)))
    picked: list[Candidate] = []
    while left and len(picked) < limit:
        best = min(left, key=lambda i: (sum(seen[s] for s in singles[i]), sum(seen[p] for p in pairs[i]), i))
        left.remove(best)
        seen.update(singles[best])
        seen.update(pairs[best])
        picked.append(pool[best])
    return tuple(picked)
