"""When trials that run side by side start and end in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autotuner.core import Trial
from autotuner.evaluate.clock import steady_unix_time


class VirtualClocks:
    """A clock for each of `places` places of trials, and one for each GPU of `devices`."""

    def __init__(self, places: int, devices: Sequence[int] = ()) -> None:
        self._places = dict.fromkeys(range(places), steady_unix_time())
        self._devices = dict.fromkeys(devices, 0.0)

    def timed(self, trial: Trial, place: int, devices: Sequence[int] = ()) -> Trial:
        """The trial, started when those before it in its place and on its GPUs have ended."""
        started = max(self._places[place], *(self._devices[index] for index in devices), 0.0)
        self._places[place] = ended = started + trial.ended - trial.started
        self._devices.update(dict.fromkeys(devices, ended))
        return replace(trial, started=started, ended=ended)
