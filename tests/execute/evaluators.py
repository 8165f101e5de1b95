"""An evaluator whose launches do what their candidate says; it can be pickled."""

from __future__ import annotations

import errno
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

from autotuner.core import Candidate, LoadPoint, Measurement, Observer, Progress, Purpose, Source, Workload
from autotuner.errors import MachineError, RunStoreError
from autotuner.search.launch import LoadPlan

WORKLOAD = Workload((LoadPoint("D(1,1)", concurrency=1),))
ERRORS: dict[str, BaseException] = {
    "machine": MachineError("no vllm", why="It is not installed.", remedy="Install it."),
    "store": RunStoreError("not a run"),
    "zero": ZeroDivisionError("division by zero"),
    "disk": OSError(errno.ENOSPC, "No space left on device"),
    "files": OSError(errno.EMFILE, "Too many open files"),
}


class ScriptedEvaluator:
    """Sleeps for `seconds`, then does the `act` of the candidate; its measurement has what it was called with."""

    source: Source = "simulated"
    workload = WORKLOAD

    def __init__(self, observe: Observer) -> None:
        self.observe = observe

    def clock(self) -> float:
        return time.time()

    def evaluate(
        self,
        candidate: Candidate,
        load_plan: LoadPlan,
        folder: Path,
        trial_number: int = 0,
        purpose: Purpose = "search",
        devices: tuple[int, ...] = (),
    ) -> Measurement:
        folder.mkdir(parents=True, exist_ok=True)
        act = candidate.parameters.get("act")
        try:
            self.observe(Progress("starting", trial_number, candidate, purpose=purpose))
            logging.getLogger("autotuner.test").debug("trial %d on %s", trial_number, devices)
            wait_for(folder.parent, candidate.parameters)
            if act in ERRORS:
                raise ERRORS[str(act)]
            if act == "die":
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            (folder / "cleaned-up").touch()
        step = load_plan.ask()
        assert step is not None
        server = {"devices": list(devices), "load_point": str(step.load_point), "folder": str(folder)}
        return Measurement("simulated", (), server=server)


def wait_for(folder: Path, parameters: Any) -> None:
    """Wait until the file that the candidate names exists; touch the one that it announces itself with."""
    if announced := parameters.get("announces"):
        (folder / announced).touch()
    while (awaited := parameters.get("awaits")) and not (folder / awaited).exists():
        time.sleep(0.01)
