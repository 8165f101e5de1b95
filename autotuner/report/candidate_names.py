"""What the candidates of a run are called: by the number of the first trial, and by what sets them apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from autotuner.core import Candidate, Trial, Value
from autotuner.report.formatting import candidate_label, format_setting, shorten
from autotuner.scoring.rank import Ranking

DEFAULTS_NAME = "defaults"
"""What the launch of the engine's own defaults is called."""


@dataclass(frozen=True)
class CandidateNames:
    """Short names of candidates.

    `baseline` is that of the engine's own defaults, None where they are not launched. `common` are
    the parameters that are the same in every candidate, `constant` those that are the same in every
    one but the baseline. `numbers` holds each candidate's first trial, by key.
    """

    baseline: Candidate | None = None
    common_parameters: Mapping[str, Value] = field(default_factory=dict)
    searched_constants: Mapping[str, Value] = field(default_factory=dict)
    trial_numbers: Mapping[str, int] = field(default_factory=dict)
    runtimes_differ: bool = False

    @classmethod
    def from_trials(cls, trials: Sequence[Trial]) -> CandidateNames:
        """The names in a run with these trials."""
        numbers: dict[str, int] = {}
        for trial in sorted(trials, key=lambda trial: (trial.purpose == "confirmation", trial.number)):
            numbers.setdefault(trial.candidate.key, trial.number)
        baseline = next((trial.candidate for trial in trials if trial.purpose == "baseline"), None)
        return cls.from_candidates([trial.candidate for trial in trials], baseline, numbers)

    @classmethod
    def from_ranking(cls, ranking: Ranking) -> CandidateNames:
        """The names of what a ranking holds."""
        numbers = {standing.candidate.key: standing.trial_number for standing in ranking.standings}
        baseline = ranking.defaults.candidate if ranking.defaults else None
        return cls.from_candidates([standing.candidate for standing in ranking.standings], baseline, numbers)

    @classmethod
    def from_candidates(
        cls,
        candidates: Iterable[Candidate],
        baseline: Candidate | None = None,
        trial_numbers: Mapping[str, int] | None = None,
    ) -> CandidateNames:
        """The names of these candidates, the baseline one of them or not."""
        different = {candidate.key: candidate for candidate in candidates}
        if baseline is not None:
            different.pop(baseline.key, None)
        searched = list(different.values())
        every = [*searched, baseline] if baseline is not None else searched
        common = _common_values(every)
        constant = {name: value for name, value in _common_values(searched).items() if name not in common}
        mixed = len({candidate.runtime for candidate in every}) > 1
        return cls(baseline, common, constant, trial_numbers or {}, mixed)

    def short_name(self, candidate: Candidate) -> str:
        """What sets a candidate apart from the others, as in `defaults (tp-size=4)` or `chunked-prefill-size=2048`."""
        if self._is_baseline(candidate):
            own = _settings_text(candidate.parameters)
            return f"{DEFAULTS_NAME} ({own})" if own else DEFAULTS_NAME
        return self._label_without(
            candidate, {**self.common_parameters, **self.searched_constants}, self.common_parameters
        )

    def changes_from_defaults(self, candidate: Candidate) -> str:
        """Everything a candidate sets that the engine's own defaults do not; its short name where none are known."""
        if self.baseline is None or self._is_baseline(candidate):
            return self.short_name(candidate)
        return self._label_without(candidate, self.baseline.parameters)

    def full_name(self, candidate: Candidate, number: int | None = None) -> str:
        """A candidate in a sentence: the number of its first trial, and what differs from the defaults."""
        number = self.trial_numbers.get(candidate.key, number)
        trial = "" if number is None else f"trial {number}"
        if self._is_baseline(candidate):
            return ", ".join(filter(None, (trial, f"the {self.short_name(candidate)}")))
        text = self.changes_from_defaults(candidate)
        return f"{trial} ({text})" if trial else text

    def shared_settings(self) -> list[str]:
        """Sentences that name the parameters which are the same in all candidates."""
        groups = (
            ("All candidates", self.common_parameters),
            ("All candidates but the defaults", self.searched_constants),
        )
        return [f"{who}: {_settings_text(settings)}." for who, settings in groups if settings]

    def _is_baseline(self, candidate: Candidate) -> bool:
        return self.baseline is not None and candidate.key == self.baseline.key

    def _label_without(self, candidate: Candidate, *references: Mapping[str, Value]) -> str:
        """The settings that are not in the first of `without` that leaves any; all of them where none does."""
        own = candidate.parameters
        for known in (*references, {}):
            names = [name for name in own if not (name in known and _equal(own[name], known[name]))]
            if names:
                break
        return candidate_label(candidate, names, runtime=self.runtimes_differ)


def _common_values(candidates: Sequence[Candidate]) -> dict[str, Value]:
    """The parameters that several candidates all have with the same value."""
    if len(candidates) < 2:
        return {}
    first, *rest = (candidate.parameters for candidate in candidates)
    return {
        name: value
        for name, value in first.items()
        if all(name in other and _equal(other[name], value) for other in rest)
    }


def _equal(first: Value, second: Value) -> bool:
    """Whether two values are the same setting: true is not 1."""
    return repr(first) == repr(second)


def _settings_text(settings: Mapping[str, Value]) -> str:
    return " ".join(f"{name}={shorten(format_setting(value))}" for name, value in settings.items())
