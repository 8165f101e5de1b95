"""Base class of searchers that fix their candidates in advance."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.core import Candidate, Trial
from autotuner.search.launch import Launch
from autotuner.search.protocol import SearchReport


class ListedCandidates:
    """Proposes a fixed list of candidates in order, without those that were tried before.

    `space_size` is how many candidates the list was chosen from.
    """

    def __init__(self, candidates: Sequence[Candidate], space_size: int) -> None:
        self.candidates = tuple(candidates)
        self.space_size = space_size
        self._tried_keys: set[str] = set()

    def preview(self) -> tuple[Launch, ...]:
        """Every candidate of the list."""
        return tuple(map(Launch, self.candidates))

    def ask(self) -> Launch | None:
        """The first candidate of the list that is neither proposed nor tried yet."""
        for candidate in self.candidates:
            if candidate.key not in self._tried_keys:
                self._tried_keys.add(candidate.key)
                return Launch(candidate)
        return None

    @property
    def report(self) -> SearchReport:
        if any(candidate.key not in self._tried_keys for candidate in self.candidates):
            return SearchReport()
        if len(self.candidates) < self.space_size:
            count = f"{len(self.candidates)} of {self.space_size}"
            return SearchReport(f"max_iterations allows {count} candidates, and they were tried")
        return SearchReport("every candidate was tried")

    def tell(self, trial: Trial) -> None:
        """Do not propose this trial's candidate any more."""
        self._tried_keys.add(trial.candidate.key)
