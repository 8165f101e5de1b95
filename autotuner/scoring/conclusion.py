"""What a run comes to for its user: which of a few situations it ended in, with the facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from autotuner.core import FailureKind, Trial, Verdict
from autotuner.experiment import Experiment
from autotuner.scoring.confirm import Gain, gain
from autotuner.scoring.rank import Ranking, Standing

MEETS = (Verdict.FEASIBLE, Verdict.UNDECIDED)


class Situation(StrEnum):
    """How the winner and the engine's defaults stand to each other at the end of a run."""

    NOTHING_RAN = "nothing-ran"
    NOTHING_MEASURED = "nothing-measured"
    NOTHING_FEASIBLE = "nothing-feasible"
    DEFAULTS_ARE_BEST = "defaults-are-best"
    DEFAULTS_NOT_LAUNCHED = "defaults-not-launched"
    DEFAULTS_FAILED = "defaults-failed"
    DEFAULTS_MISS = "defaults-miss-the-targets"
    GAIN = "gain"
    TIE = "tie"
    LOSS = "loss"
    UNCONFIRMED = "unconfirmed"


@dataclass(frozen=True)
class Conclusion:
    """A situation and what it rests on.

    `gain` is that of fresh launches, None without them. `cause` is the one failure that every
    launch met. `refuted` stood first after the search and were put down by fresh launches.
    """

    situation: Situation
    winner: Standing | None = None
    defaults: Standing | None = None
    gain: Gain | None = None
    cause: FailureKind | None = None
    refuted: tuple[Standing, ...] = ()


def conclude(ranking: Ranking, trials: Sequence[Trial], experiment: Experiment) -> Conclusion:
    """The situation a run ended in."""
    winner, defaults = ranking.winner, ranking.defaults
    refuted = tuple(
        standing
        for standing in ranking.standings
        if standing.confirmations and standing.verdict not in MEETS and standing != defaults
    )
    if not trials:
        return Conclusion(Situation.NOTHING_RAN)
    if winner is None:
        kinds = {trial.measurement.failure.kind if trial.measurement.failure else None for trial in trials}
        if None not in kinds:
            cause = next(iter(kinds)) if len(kinds) == 1 else None
            return Conclusion(Situation.NOTHING_MEASURED, defaults=defaults, cause=cause)
        return Conclusion(Situation.NOTHING_FEASIBLE, defaults=defaults, refuted=refuted)
    confirmed = gain(ranking, trials, experiment)
    situation = _situation(winner, defaults, confirmed)
    return Conclusion(situation, winner, defaults, confirmed, refuted=refuted)


def _situation(winner: Standing, defaults: Standing | None, confirmed: Gain | None) -> Situation:
    if defaults is None:
        return Situation.DEFAULTS_NOT_LAUNCHED
    if winner.trial == defaults.trial:
        return Situation.DEFAULTS_ARE_BEST
    if defaults.value is None or defaults.verdict not in (*MEETS, Verdict.INFEASIBLE, Verdict.SATURATED):
        return Situation.DEFAULTS_FAILED
    if defaults.verdict not in MEETS:
        return Situation.DEFAULTS_MISS
    if confirmed is None:
        return Situation.UNCONFIRMED
    if confirmed.reliable:
        return Situation.GAIN
    return Situation.LOSS if confirmed.loses else Situation.TIE
