"""Random search: a seeded draw without replacement."""

from __future__ import annotations

import random

from autotuner.search.listed import Listed
from autotuner.search.space import Space


class Random(Listed):
    """Asks for `limit` candidates in a random order that the seed fixes."""

    def __init__(self, space: Space, limit: int, seed: int) -> None:
        count = min(limit, len(space.candidates))
        super().__init__(random.Random(seed).sample(space.candidates, count))
