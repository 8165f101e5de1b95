"""What each setting is worth: ratios between candidates that differ in that setting alone.

Marginal figures, such as the median over all candidates with one value, mix a setting with all others:
they can rank values the wrong way round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from autotuner.core import Candidate, Value, Verdict
from autotuner.report.run_view import RunView
from autotuner.scoring.objective import OBJECTIVES, Objective
from autotuner.scoring.rank import Standing


@dataclass(frozen=True)
class SettingEffect:
    """The change of one parameter from `before` to `after`, all others equal.

    `ratios` are those of the objective's utility, above 1 is better, one for each matched pair in which
    both candidates meet the targets, ascending; `lost` pairs meet them with `before` alone, `gained` with
    `after` alone.
    """

    parameter: str
    before: Value
    after: Value
    ratios: tuple[float, ...]
    lost: int = 0
    gained: int = 0

    @property
    def median(self) -> float | None:
        """The median ratio; None without a pair."""
        return median(self.ratios) if self.ratios else None

    @property
    def size(self) -> float:
        """How far the median is from no effect, as a ratio of at least 1; 0 without a pair."""
        return max(self.median, 1 / self.median) if self.median else 0.0


def setting_effects(view: RunView) -> list[SettingEffect]:
    """The effects of all parameters with a matched pair, the largest first."""
    effects = []
    standings_by_key = {standing.candidate.key: standing for standing in view.ranking.standings}
    for parameter, values in view.experiment.parameters.items():
        standings_by_value: dict[str, list[Standing]] = {}
        for standing in view.ranking.standings:
            if parameter in standing.candidate.parameters:
                value_text = repr(standing.candidate.parameters[parameter])
                standings_by_value.setdefault(value_text, []).append(standing)
        for before, after in pairwise(dict.fromkeys(values)):
            pairs = _matched_pairs(parameter, after, standings_by_value.get(repr(before), ()), standings_by_key)
            effect = _effect(parameter, before, after, pairs, OBJECTIVES[view.ranking.objective])
            if effect.ratios or effect.lost or effect.gained:
                effects.append(effect)
    return sorted(effects, key=lambda effect: -effect.size)


def unmatched_parameters(view: RunView, effects: Sequence[SettingEffect]) -> list[str]:
    """The searched parameters of which no two candidates differ in nothing else."""
    matched = {effect.parameter for effect in effects}
    return [
        name
        for name, values in view.experiment.parameters.items()
        if len(dict.fromkeys(values)) > 1 and name not in matched
    ]


def _matched_pairs(
    parameter: str, after: Value, standings: Iterable[Standing], standings_by_key: Mapping[str, Standing]
) -> list[tuple[Standing, Standing]]:
    """Each of `standings` with the one of the same source that has `after` for the parameter and all else equal."""
    pairs = []
    for standing in standings:
        candidate = standing.candidate
        changed = Candidate(candidate.runtime, {**candidate.parameters, parameter: after})
        other = standings_by_key.get(changed.key)
        if other is not None and other.source == standing.source:
            pairs.append((standing, other))
    return pairs


def _effect(
    parameter: str, before: Value, after: Value, pairs: Iterable[tuple[Standing, Standing]], objective: Objective
) -> SettingEffect:
    ratios: list[float] = []
    lost = gained = 0
    for standing, other in pairs:
        meets, other_meets = _meets_targets(standing), _meets_targets(other)
        if meets and other_meets and standing.value and other.value:
            ratios.append(objective.utility(other.value) / objective.utility(standing.value))
        lost += meets and not other_meets
        gained += other_meets and not meets
    return SettingEffect(parameter, before, after, tuple(sorted(ratios)), lost, gained)


def _meets_targets(standing: Standing) -> bool:
    return standing.verdict in (Verdict.FEASIBLE, Verdict.UNDECIDED)
