"""Names the candidates of a run: by the number of the first trial and the parameters in which they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from autotuner.core import Candidate, Value
from autotuner.report.formatting import candidate_label, format_setting, shorten
from autotuner.scoring.rank import Ranking

DEFAULTS_NAME = "defaults"
"""Name of the candidate that runs with the engine's own defaults."""


@dataclass(frozen=True)
class CandidateNames:
    """Names of candidates.

    `baseline` is the candidate with the engine's own defaults, None if not launched. `common_parameters`
    have the same value in every candidate, `searched_constants` in every one except the baseline.
    `trial_numbers` maps a candidate's key to the number of its first trial.
    """

    baseline: Candidate | None = None
    common_parameters: Mapping[str, Value] = field(default_factory=dict)
    searched_constants: Mapping[str, Value] = field(default_factory=dict)
    trial_numbers: Mapping[str, int] = field(default_factory=dict)
    runtimes_differ: bool = False

    @classmethod
    def from_ranking(cls, ranking: Ranking) -> CandidateNames:
        trial_numbers = {standing.candidate.key: standing.trial_number for standing in ranking.standings}
        baseline = ranking.defaults.candidate if ranking.defaults else None
        return cls.from_candidates([standing.candidate for standing in ranking.standings], baseline, trial_numbers)

    @classmethod
    def from_candidates(
        cls,
        candidates: Iterable[Candidate],
        baseline: Candidate | None = None,
        trial_numbers: Mapping[str, int] | None = None,
    ) -> CandidateNames:
        """Names for these candidates; the baseline may be one of them."""
        unique = {candidate.key: candidate for candidate in candidates}
        if baseline is not None:
            unique.pop(baseline.key, None)
        searched = list(unique.values())
        all_candidates = [*searched, baseline] if baseline is not None else searched
        common = _common_values(all_candidates)
        constant = {name: value for name, value in _common_values(searched).items() if name not in common}
        runtimes_differ = len({candidate.runtime for candidate in all_candidates}) > 1
        return cls(baseline, common, constant, trial_numbers or {}, runtimes_differ)

    def short_name(self, candidate: Candidate) -> str:
        """The distinguishing settings, such as `defaults (tp-size=4)` or `chunked-prefill-size=2048`."""
        if self._is_baseline(candidate):
            settings = _settings_text(candidate.parameters)
            return f"{DEFAULTS_NAME} ({settings})" if settings else DEFAULTS_NAME
        return self._label_without(
            candidate, {**self.common_parameters, **self.searched_constants}, self.common_parameters
        )

    def changes_from_defaults(self, candidate: Candidate) -> str:
        """All settings that differ from the engine's own defaults; the short name if there is no baseline."""
        if self.baseline is None or self._is_baseline(candidate):
            return self.short_name(candidate)
        return self._label_without(candidate, self.baseline.parameters)

    def full_name(self, candidate: Candidate, number: int | None = None) -> str:
        """Name for use in a sentence: the number of the first trial, and the changes from the defaults."""
        number = self.trial_numbers.get(candidate.key, number)
        trial = "" if number is None else f"trial {number}"
        if self._is_baseline(candidate):
            return ", ".join(filter(None, (trial, f"the {self.short_name(candidate)}")))
        text = self.changes_from_defaults(candidate)
        return f"{trial} ({text})" if trial else text

    def shared_settings(self) -> list[str]:
        """Sentences that list the settings shared by all candidates."""
        groups = (
            ("All candidates", self.common_parameters),
            ("All candidates except the defaults", self.searched_constants),
        )
        return [f"{subject}: {_settings_text(settings)}." for subject, settings in groups if settings]

    def _is_baseline(self, candidate: Candidate) -> bool:
        return self.baseline is not None and candidate.key == self.baseline.key

    def _label_without(self, candidate: Candidate, *references: Mapping[str, Value]) -> str:
        """The settings that differ from the first of `references` from which any differ; else all settings."""
        settings = candidate.parameters
        for reference in (*references, {}):
            names = [name for name in settings if not (name in reference and _equal(settings[name], reference[name]))]
            if names:
                break
        return candidate_label(candidate, names, runtime=self.runtimes_differ)


def _common_values(candidates: Sequence[Candidate]) -> dict[str, Value]:
    """The parameters with the same value in all candidates; empty for fewer than two candidates."""
    if len(candidates) < 2:
        return {}
    first, *rest = (candidate.parameters for candidate in candidates)
    return {
        name: value
        for name, value in first.items()
        if all(name in other and _equal(other[name], value) for other in rest)
    }


def _equal(first: Value, second: Value) -> bool:
    """Whether two values are the same setting: true and 1 are not."""
    return repr(first) == repr(second)


def _settings_text(settings: Mapping[str, Value]) -> str:
    return " ".join(f"{name}={shorten(format_setting(value))}" for name, value in settings.items())
