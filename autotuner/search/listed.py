"""The part shared by searchers whose candidates are fixed beforehand."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.core import Candidate, Trial
from autotuner.search.account import SearchReport
from autotuner.search.launch import Launch


class ListedCandidates:
    """Asks for a fixed list of candidates in order, leaving out those already asked for or told.

    `every` is how many candidates the list was chosen from.
    """

    def __init__(self, candidates: Sequence[Candidate], space_size: int) -> None:
        self.candidates = tuple(candidates)
        self.space_size = space_size
        self._tried_keys: set[str] = set()

    def ask(self) -> Launch | None:
        """The first candidate of the list not yet asked for or told."""
        for candidate in self.candidates:
            if candidate.key not in self._tried_keys:
                self._tried_keys.add(candidate.key)
                return Launch(candidate)
        return None

    @property
    def report(self) -> SearchReport:
        """It ends with its list."""
        if any(candidate.key not in self._tried_keys for candidate in self.candidates):
            return SearchReport()
        if len(self.candidates) < self.space_size:
            return SearchReport(
                f"max_iterations allows {len(self.candidates)} of {self.space_size} candidates, and they were tried"
            )
        return SearchReport("every candidate was tried")

    def tell(self, trial: Trial) -> None:
        """Never ask for this trial's candidate again."""
        self._tried_keys.add(trial.candidate.key)
