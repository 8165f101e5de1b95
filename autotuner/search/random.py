"""Random search: a seeded draw without replacement."""

from __future__ import annotations

import random

from autotuner.search.listed import ListedCandidates
from autotuner.search.problem import Problem


class RandomSearch(ListedCandidates):
    """Asks for at most `limit` candidates in a random order that the seed fixes."""

    def __init__(self, problem: Problem) -> None:
        candidates = problem.space.candidates
        super().__init__(
            random.Random(problem.seed).sample(candidates, min(problem.max_launches, len(candidates))), len(candidates)
        )
