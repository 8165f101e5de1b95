"""Grid search: every candidate, or a balanced subset of them when launches are limited."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from autotuner.core import Candidate
from autotuner.search.listed import ListedCandidates
from autotuner.search.problem import Problem

MAX_CONSIDERED = 2_000
"""Candidates a strategy considers, a seeded sample of larger spaces; by hand: balancing takes quadratic time."""

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
    columns = [_value_codes([candidate.parameters.get(name, ABSENT) for candidate in pool]) for name in names]
    # what all candidates have in common does not change their order
    varied = [column for column in columns if any(column)]
    codes = np.array(varied, dtype=np.int32).reshape(len(varied), len(pool)).T
    is_remaining = np.ones(len(pool), dtype=bool)
    single_counts, pair_counts = np.zeros((2, len(pool)), dtype=np.int64)
    chosen: list[Candidate] = []
    while is_remaining.any() and len(chosen) < limit:
        rarest = _least(is_remaining, single_counts, pair_counts)
        is_remaining[rarest] = False
        chosen.append(pool[rarest])
        common = (codes == codes[rarest]).sum(axis=1)
        single_counts += common
        pair_counts += common * (common - 1) // 2
    return tuple(chosen)


def _value_codes(values: Sequence[object]) -> list[int]:
    """A number for each value, the same for equal ones, from 0."""
    codes: dict[object, int] = {}
    return [codes.setdefault(value, len(codes)) for value in values]


def _least(allowed: np.ndarray, *scores: np.ndarray) -> int:
    """The first allowed index with the least first score, and of those the least second one, and so on."""
    indexes = np.flatnonzero(allowed)
    for score in scores:
        values = score[indexes]
        indexes = indexes[values == values.min()]
    return int(indexes[0])
