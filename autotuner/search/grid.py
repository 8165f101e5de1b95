"""Grid search: every candidate, or a balanced subset of them when launches are limited."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence

from autotuner.core import Candidate
from autotuner.search.listed import ListedCandidates
from autotuner.search.problem import Problem

MAX_CONSIDERED = 2_000
"""Candidates a strategy considers, a seeded sample of larger spaces; by hand: balancing them takes quadratic time."""

ABSENT = object()
"""Stands for the value of a parameter that a candidate lacks."""


class GridSearch(ListedCandidates):
    """Proposes the space in its own order; with fewer launches than candidates, a balanced subset of it."""

    def __init__(self, problem: Problem) -> None:
        candidates = problem.space.candidates
        super().__init__(balanced_subset(candidates, problem.max_launches, problem.seed), len(candidates))


def balanced_subset(candidates: Sequence[Candidate], limit: int, seed: int) -> tuple[Candidate, ...]:
    """`limit` candidates, in their given order, in which every value and then every pair of values is equally frequent.

    The first `limit` candidates of a grid would lack whole values of its slowest parameter.
    """
    if len(candidates) <= limit:
        return tuple(candidates)
    indices = {candidate: index for index, candidate in enumerate(candidates)}
    return tuple(sorted(balanced_order(candidates, limit, seed), key=indices.__getitem__))


def balanced_order(candidates: Sequence[Candidate], limit: int, seed: int) -> tuple[Candidate, ...]:
    """`limit` candidates chosen greedily, so that any prefix is balanced in values and then in pairs of values."""
    pool = list(candidates)
    if len(pool) > MAX_CONSIDERED:
        pool = random.Random(seed).sample(pool, MAX_CONSIDERED)
    # absence counts as a value, else candidates with few parameters would come first
    names = list(dict.fromkeys(name for candidate in pool for name in candidate.parameters))
    singles = [tuple((name, candidate.parameters.get(name, ABSENT)) for name in names) for candidate in pool]
    pairs = [tuple(itertools.combinations(items, 2)) for items in singles]
    counts: Counter[object] = Counter()
    remaining = list(range(len(pool)))
    chosen: list[Candidate] = []
    while remaining and len(chosen) < limit:
        rarest = min(remaining, key=lambda i: (sum(counts[s] for s in singles[i]), sum(counts[p] for p in pairs[i]), i))
        remaining.remove(rarest)
        counts.update(singles[rarest])
        counts.update(pairs[rarest])
        chosen.append(pool[rarest])
    return tuple(chosen)
