"""Random search: a seeded draw without replacement."""

from __future__ import annotations

import random

from autotuner.search.listed import ListedCandidates
from autotuner.search.problem import Problem


class RandomSearch(ListedCandidates):
    """Proposes a random sample of at most `problem.max_launches` candidates."""

    def __init__(self, problem: Problem) -> None:
        candidates = problem.space.candidates
        count = min(problem.max_launches, len(candidates))
        super().__init__(random.Random(problem.seed).sample(candidates, count), len(candidates))
