"""What a run's gain is worth: the winner against the baseline on launches that the search did not choose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from autotuner.core import LoadPoint, Trial
from autotuner.experiment import Experiment
from autotuner.scoring.intervals import student
from autotuner.scoring.judge import judge
from autotuner.scoring.rank import Ranking


@dataclass(frozen=True)
class Gain:
    """How many times better the winner is than the baseline, with its 95% interval.

    `winner` and `baseline` are the launches behind it. The winner's own search trial is not among
    them: it was chosen because it came out well. The baseline's first launch was not chosen, and is.
    """

    value: float
    low: float
    high: float
    winner: int
    baseline: int

    @property
    def reliable(self) -> bool:
        """Whether the whole interval lies above no gain."""
        return self.low > 1.0


def gain(ranking: Ranking, trials: Sequence[Trial], experiment: Experiment) -> Gain | None:
    """The confirmed gain; None where winner or baseline were not confirmed.

    Student's t on the log utilities of single launches, whose variance both candidates share.
    """
    best, first = ranking.winner, next((s for s in ranking.standings if s.trial == ranking.baseline), None)
    if best is None or first is None or best.trial == first.trial:
        return None
    judged = [judge(trial, experiment) for trial in trials if not trial.failed]
    again = [trial for trial in judged if trial.purpose == "confirmation"]
    defaults = [trial for trial in judged if trial.number == first.trial and trial.purpose == "baseline"]
    wins = _logs([trial for trial in again if trial.candidate == best.candidate], best.load_points)
    others = [*defaults, *(trial for trial in again if trial.candidate == first.candidate)]
    losses = _logs(others, first.load_points)
    freedom = len(wins) + len(losses) - 2
    if not wins or not losses or freedom < 1:
        return None
    squares = sum(variance(logs) * (len(logs) - 1) for logs in (wins, losses) if len(logs) > 1)
    spread = student(freedom) * math.sqrt(squares / freedom * (1 / len(wins) + 1 / len(losses)))
    middle = fmean(wins) - fmean(losses)
    return Gain(math.exp(middle), math.exp(middle - spread), math.exp(middle + spread), len(wins), len(losses))


def _logs(trials: Sequence[Trial], points: Sequence[LoadPoint]) -> list[float]:
    """The log utility of each trial over the load points it is compared at."""
    found = []
    for trial in trials:
        scores = {r.load_point: r.score.utility for r in trial.measurement.load_points if r.score}
        if points and all(point in scores for point in points):
            found.append(fmean(math.log(scores[point]) for point in points))
    return found
