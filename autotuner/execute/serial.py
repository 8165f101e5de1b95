"""Runs trials one at a time, in this process."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from autotuner.core import Trial
from autotuner.evaluate.protocol import Evaluator
from autotuner.execute.trial import run_trial
from autotuner.search.launch import Launch


class SerialExecutor(AbstractContextManager["SerialExecutor"]):
    """Runs a submitted trial when it is waited for, on the GPUs with the indexes `devices`, empty for any."""

    def __init__(self, evaluator: Evaluator, devices: tuple[int, ...] = ()) -> None:
        self.evaluator = evaluator
        self.devices = devices
        self._submitted: tuple[int, Launch, Path] | None = None

    def __exit__(self, *exc: object) -> None:
        pass

    @property
    def has_room(self) -> bool:
        """Whether another launch can be submitted."""
        return self._submitted is None

    def submit(self, number: int, launch: Launch, folder: Path) -> None:
        """Queue a launch as trial `number`, whose logs and records go to `folder`."""
        self._submitted = number, launch, folder

    def wait_for_trial(self) -> Trial | None:
        """Run the queued trial; None if there is none."""
        if self._submitted is None:
            return None
        (number, launch, folder), self._submitted = self._submitted, None
        return run_trial(self.evaluator, number, launch, folder, self.devices)
