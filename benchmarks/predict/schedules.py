"""Simulated schedules of rows, and how they change with the seconds of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from rows import Arrays, Row

from autotuner.predict.schedule import CacheLimit, StepCurves, simulate_schedule
from autotuner.predict.step_curves import cache_limit, step_curves

STEP = 0.08
"""Log step of the differences that give the slopes."""
FLOOR = 1e-4
"""Seconds added to a queue so that its logarithm has a slope."""


class Times(NamedTuple):
    """As `ScheduleTimes`, arrays over rows."""

    queue: np.ndarray
    prefill: np.ndarray
    decode: np.ndarray
    stall: np.ndarray


@dataclass
class Schedules:
    """Times of the rows' schedules, log-linear in the seconds of a decode step and of a step with a prompt."""

    times: np.ndarray
    decode_slopes: np.ndarray
    prompt_slopes: np.ndarray
    decode_seconds: np.ndarray
    prompt_seconds: np.ndarray
    mixes_phases: np.ndarray

    def part(self, rows: np.ndarray) -> Schedules:
        """Some of the rows."""
        return Schedules(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def at(self, seconds: Sequence[np.ndarray]) -> Times:
        """The times where the steps take these seconds, those of `Arrays.works`."""
        decode = np.log(seconds[3] / self.decode_seconds)[:, None]
        prompt = np.log(_prompt_seconds(seconds, self.mixes_phases) / self.prompt_seconds)[:, None]
        values = self.times * np.exp(np.clip(self.decode_slopes * decode + self.prompt_slopes * prompt, -4, 4))
        return Times(values[:, 0] - FLOOR, values[:, 1], values[:, 2], values[:, 3] - FLOOR / 100)


def _simulated(row: Row, limit: CacheLimit, curves: StepCurves) -> np.ndarray:
    times = simulate_schedule(curves, row.harness, isl=row.isl, osl=row.osl, in_flight=row.in_flight, limit=limit)
    return np.add(times, (FLOOR, 0.0, 0.0, FLOOR / 100))


def _prompt_seconds(seconds: Sequence[np.ndarray], mixes_phases: np.ndarray) -> np.ndarray:
    return np.where(mixes_phases, seconds[6], seconds[4])


def linear_schedules(a: Arrays, seconds: Sequence[np.ndarray], *, with_slopes: bool = True) -> Schedules:
    """Simulate every row where its steps take these seconds, and with slower decodes and slower prompts."""
    times, decode_slopes, prompt_slopes = (np.zeros((len(a.rows), 4)) for _ in range(3))
    decode, prompt, second, mixed = np.array(seconds[:4]).T, *seconds[4:]
    for index, row in enumerate(a.rows):
        work = a.step_work[index]
        curves = step_curves(
            work,
            tuple(decode[index].tolist()),
            *(float(values[index]) for values in (prompt, second, mixed)),
            token_limit=row.deployment.max_batched_tokens,
            mixes_phases=bool(a.mixes_phases[index]),
            computed_share=1.0,
        )
        limit = cache_limit(row.deployment)
        if row.separate_prefill:
            limit = replace(limit, tokens=float("inf"))

        run = partial(_simulated, row, limit)
        times[index] = run(curves)
        if with_slopes:
            factor = float(np.exp(STEP))
            slower_decode = replace(curves, decode=tuple(value * factor for value in curves.decode))
            slower_prompt = replace(
                curves,
                prompt_base=curves.prompt_base * factor,
                prompt_slope=curves.prompt_slope * factor,
                decode_in_mixed=curves.decode_in_mixed * factor,
            )
            logs = np.log(times[index])
            decode_slopes[index] = (np.log(run(slower_decode)) - logs) / STEP
            prompt_slopes[index] = (np.log(run(slower_prompt)) - logs) / STEP
    clip = (-3.0, 3.0)
    return Schedules(
        times,
        np.clip(decode_slopes, *clip),
        np.clip(prompt_slopes, *clip),
        seconds[3],
        _prompt_seconds(seconds, a.mixes_phases),
        a.mixes_phases,
    )
