"""What a run comes to for its user: which of a few situations it ended in, with the facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from autotuner.core import FailureKind, Trial, Verdict
from autotuner.experiment import Experiment
from autotuner.scoring.confirm import Gain, confirmed_gain, gain_between
from autotuner.scoring.rank import Ranking, Standing

PASSING_VERDICTS = (Verdict.FEASIBLE, Verdict.UNDECIDED)


class Situation(StrEnum):
    """How the winner and the engine's defaults stand to each other at the end of a run."""

    NOTHING_RAN = "nothing-ran"
    NOTHING_MEASURED = "nothing-measured"
    NOTHING_FEASIBLE = "nothing-feasible"
    DEFAULTS_ALONE = "defaults-alone"
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

    `gain` is that of fresh launches, of the winner or in a tie of the defaults' closest rival, None without
    them. `cause` is the one failure that every
    launch met, `errors` those that answers were, with their counts, where none came. `refuted` stood
    first after the search and were put down by fresh launches.
    """

    situation: Situation
    winner: Standing | None = None
    defaults: Standing | None = None
    gain: Gain | None = None
    common_failure: FailureKind | None = None
    error_summary: str = ""
    refuted_standings: tuple[Standing, ...] = ()


def conclude(ranking: Ranking, trials: Sequence[Trial], experiment: Experiment) -> Conclusion:
    """The situation a run ended in."""
    winner, defaults = ranking.winner, ranking.defaults
    refuted = tuple(
        standing
        for standing in ranking.standings
        if standing.confirmation_count and standing.verdict not in PASSING_VERDICTS and standing != defaults
    )
    if not trials:
        return Conclusion(Situation.NOTHING_RAN)
    if winner is None:
        kinds = {trial.measurement.failure.kind if trial.measurement.failure else None for trial in trials}
        cause = next(iter(kinds)) if len(kinds) == 1 else None
        answered = any(result.metrics.e2e is not None for trial in trials for result in trial.results)
        if None not in kinds or not answered:
            return Conclusion(
                Situation.NOTHING_MEASURED,
                defaults=defaults,
                common_failure=cause,
                error_summary=summarize_errors(trials),
            )
        return Conclusion(Situation.NOTHING_FEASIBLE, defaults=defaults, refuted_standings=refuted)
    confirmed = confirmed_gain(ranking, trials, experiment)
    if winner == defaults:
        return _conclude_for_defaults(ranking, trials, experiment, refuted)
    situation = _situation(winner, defaults, confirmed)
    return Conclusion(situation, winner, defaults, confirmed, refuted_standings=refuted)


def _conclude_for_defaults(
    ranking: Ranking, trials: Sequence[Trial], experiment: Experiment, refuted: tuple[Standing, ...]
) -> Conclusion:
    """What the defaults are the answer to: a rival that was confirmed and is no better, or none."""
    winner = ranking.standings[0]
    for rival in ranking.standings[1:]:
        unproven = gain_between(rival, winner, trials, experiment) if rival.is_tied else None
        if unproven is not None:
            situation = Situation.LOSS if unproven.is_loss else Situation.TIE
            return Conclusion(situation, winner, winner, unproven, refuted_standings=refuted)
    others = any(standing.value is not None for standing in ranking.standings[1:])
    situation = Situation.DEFAULTS_ARE_BEST if others else Situation.DEFAULTS_ALONE
    return Conclusion(situation, winner, winner, refuted_standings=refuted)


def summarize_errors(trials: Sequence[Trial]) -> str:
    """The classes of all errors with their counts, the most frequent first; empty without any."""
    counts: Counter[str] = Counter()
    for trial in trials:
        for result in trial.results:
            counts.update(result.metrics.errors)
    return ", ".join(f"{name} {count:,} times" for name, count in counts.most_common())


def _situation(winner: Standing, defaults: Standing | None, confirmed: Gain | None) -> Situation:
    if defaults is None:
        return Situation.DEFAULTS_NOT_LAUNCHED
    if defaults.value is None or defaults.verdict not in (*PASSING_VERDICTS, Verdict.INFEASIBLE, Verdict.SATURATED):
        return Situation.DEFAULTS_FAILED
    if defaults.verdict not in PASSING_VERDICTS:
        return Situation.DEFAULTS_MISS
    if confirmed is None:
        return Situation.UNCONFIRMED
    if confirmed.is_reliable:
        return Situation.GAIN
    return Situation.LOSS if confirmed.is_loss else Situation.TIE
