"""The conclusion of a run: how its winner compares with the engine's defaults, as one of a few situations."""

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
    """How the winner compares with the engine's defaults at the end of a run."""

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
    """A situation with its evidence.

    `gain` is that of the winner on confirmation launches, or where the defaults win that of their closest
    rival; None without such launches. `common_failure` is the failure of every launch, `error_summary` the
    request errors where no request succeeded. `refuted_standings` led after the search and miss the
    targets on confirmation launches.
    """

    situation: Situation
    winner: Standing | None = None
    defaults: Standing | None = None
    gain: Gain | None = None
    common_failure: FailureKind | None = None
    error_summary: str = ""
    refuted_standings: tuple[Standing, ...] = ()


def conclude(ranking: Ranking, trials: Sequence[Trial], experiment: Experiment) -> Conclusion:
    """The conclusion of a run from its ranking and all its trials."""
    winner, defaults = ranking.winner, ranking.defaults
    refuted_standings = tuple(
        standing
        for standing in ranking.standings
        if standing.confirmation_count and standing.verdict not in PASSING_VERDICTS and standing != defaults
    )
    if not trials:
        return Conclusion(Situation.NOTHING_RAN)
    if winner is None:
        kinds = {trial.measurement.failure.kind if trial.measurement.failure else None for trial in trials}
        common_failure = next(iter(kinds)) if len(kinds) == 1 else None
        any_success = any(result.metrics.e2e is not None for trial in trials for result in trial.results)
        if None not in kinds or not any_success:
            return Conclusion(
                Situation.NOTHING_MEASURED,
                defaults=defaults,
                common_failure=common_failure,
                error_summary=summarize_errors(trials),
            )
        return Conclusion(Situation.NOTHING_FEASIBLE, defaults=defaults, refuted_standings=refuted_standings)
    if winner == defaults:
        return _conclude_for_defaults(ranking, trials, experiment, refuted_standings)
    gain = confirmed_gain(ranking, trials, experiment)
    return Conclusion(_situation(defaults, gain), winner, defaults, gain, refuted_standings=refuted_standings)


def _conclude_for_defaults(
    ranking: Ranking, trials: Sequence[Trial], experiment: Experiment, refuted_standings: tuple[Standing, ...]
) -> Conclusion:
    """The conclusion where the defaults win: over a rival that confirmation launches tie or refute, or over none."""
    winner = ranking.standings[0]
    for rival in ranking.standings[1:]:
        gain = gain_between(rival, winner, trials, experiment) if rival.is_tied else None
        if gain is not None:
            situation = Situation.LOSS if gain.is_loss else Situation.TIE
            return Conclusion(situation, winner, winner, gain, refuted_standings=refuted_standings)
    others = any(standing.value is not None for standing in ranking.standings[1:])
    situation = Situation.DEFAULTS_ARE_BEST if others else Situation.DEFAULTS_ALONE
    return Conclusion(situation, winner, winner, refuted_standings=refuted_standings)


def summarize_errors(trials: Sequence[Trial]) -> str:
    """The classes of all request errors with their counts, the most frequent first; empty without any."""
    counts: Counter[str] = Counter()
    for trial in trials:
        for result in trial.results:
            counts.update(result.metrics.errors)
    return ", ".join(f"{name} {count:,} times" for name, count in counts.most_common())


def _situation(defaults: Standing | None, gain: Gain | None) -> Situation:
    """How a winner compares with the engine's defaults, None where they were not launched."""
    if defaults is None:
        return Situation.DEFAULTS_NOT_LAUNCHED
    if defaults.value is None or defaults.verdict not in (*PASSING_VERDICTS, Verdict.INFEASIBLE, Verdict.SATURATED):
        return Situation.DEFAULTS_FAILED
    if defaults.verdict not in PASSING_VERDICTS:
        return Situation.DEFAULTS_MISS
    if gain is None:
        return Situation.UNCONFIRMED
    if gain.is_reliable:
        return Situation.GAIN
    return Situation.LOSS if gain.is_loss else Situation.TIE
