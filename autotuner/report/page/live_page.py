"""The page of a run that may go on: read from its folder again whenever that changes, whoever writes it."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import Any

from autotuner.errors import RunStoreError
from autotuner.report.page.launch_details import Launches, launch_detail
from autotuner.report.page.run_files import run_state
from autotuner.report.page.run_page import RunPage, run_page
from autotuner.runs.store import REFUSED_FILE, SEARCH_FILE, TRIALS_FILE, RunStore

LOG_LINES = 400


@dataclass(frozen=True)
class PageVersion:
    """A page, and the text that identifies the state of the folder it was read from."""

    version: str
    page: RunPage

    @property
    def data(self) -> dict[str, Any]:
        """The page as news for one that is open."""
        return {
            "title": self.page.title,
            "sections": {name: section.to_data() for name, section in self.page.sections.items()},
            "content": self.page.content,
        }


class LivePage:
    """The current page of a run folder; threads may share it."""

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._latest: PageVersion | None = None

    def current(self) -> PageVersion:
        """The page as the folder is now; the last one where a file is being written at this instant."""
        with self._lock:
            version = self.version()
            if self._latest is None or self._latest.version != version:
                try:
                    self._latest = PageVersion(version, run_page(self.store))
                except RunStoreError:
                    if self._latest is None:
                        raise
            return self._latest

    def version(self) -> str:
        """Changes whenever a trial starts or ends, and when the run ends or goes on."""
        facts: list[object] = [run_state(self.store.path)]
        for name in (TRIALS_FILE, SEARCH_FILE, REFUSED_FILE):
            try:
                status = (self.store.path / name).stat()
            except OSError:
                continue
            facts += [name, status.st_size, status.st_mtime_ns]
        facts.append(sum(1 for _ in (self.store.path / "trials").glob("*")))
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    def launch(self, number: int) -> dict[str, Any] | None:
        """The details of one launch with a long tail of its log; None where there is no such trial."""
        trials = self.store.trials_numbered({number})
        if not trials:
            return None
        launches = Launches.of(trials)
        detail = launch_detail(
            trials[0], launches.points[number], self.store.path, log_lines=LOG_LINES, with_timelines=True
        )
        return {"limits": [list(each) for each in launches.limits], "trials": {str(number): detail}}
