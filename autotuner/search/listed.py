"""The part shared by searchers whose candidates are fixed beforehand."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.core import Candidate, Trial
from autotuner.search.account import Account
from autotuner.search.launch import Launch


class Listed:
    """Asks for a fixed list of candidates in order, leaving out those already asked for or told.

    `every` is how many candidates the list was chosen from.
    """

    def __init__(self, chosen: Sequence[Candidate], every: int) -> None:
        self.chosen = tuple(chosen)
        self.every = every
        self._done: set[str] = set()

    def ask(self) -> Launch | None:
        """The first candidate of the list not yet asked for or told."""
        for candidate in self.chosen:
            if candidate.key not in self._done:
                self._done.add(candidate.key)
                return Launch(candidate)
        return None

    @property
    def account(self) -> Account:
        """It ends with its list."""
        if any(candidate.key not in self._done for candidate in self.chosen):
            return Account()
        if len(self.chosen) < self.every:
            return Account(f"max_iterations allows {len(self.chosen)} of {self.every} candidates, and they were tried")
        return Account("every candidate was tried")

    def tell(self, trial: Trial) -> None:
        """Never ask for this trial's candidate again."""
        self._done.add(trial.candidate.key)
