"""The searcher of a load test: one launch, made once."""

from __future__ import annotations

from autotuner.core import Trial
from autotuner.search.launch import Launch
from autotuner.search.protocol import EMPTY_REPORT, SearchReport


class SingleLaunch:
    """Proposes one launch."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self._is_proposed = False

    def preview(self) -> tuple[Launch, ...]:
        """The launch."""
        return (self.launch,)

    def ask(self) -> Launch | None:
        """The launch, the first time."""
        is_first, self._is_proposed = not self._is_proposed, True
        return self.launch if is_first else None

    def tell(self, trial: Trial) -> None:
        """Nothing is learned: no other launch follows."""

    @property
    def report(self) -> SearchReport:
        return EMPTY_REPORT
