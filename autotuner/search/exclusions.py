"""What failures teach of the candidates not tried yet."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.core import Candidate, FailureKind, Trial, Value

MEMORY_DEMAND_SIGN = {
    "tp-size": -1,
    "pp-size": -1,
    "max-running-requests": 1,
    "max-batched-tokens": 1,
    "max-prefill-tokens": 1,
    "chunked-prefill-size": 1,
    "max-model-len": 1,
}
"""Parameters by which the memory of a GPU is needed: more with a higher value, or with a lower one.

A memory fraction is not among them: an engine runs out of memory both with too much of it and too little.
"""

OUT_OF_MEMORY_FAILURES = (FailureKind.OUT_OF_MEMORY_AT_START, FailureKind.OUT_OF_MEMORY_UNDER_LOAD)
VALUE_FAILURES = (FailureKind.BAD_FLAG, FailureKind.NOT_DIVISIBLE)
UNIVERSAL_FAILURES = (
    FailureKind.MODEL_NOT_FOUND,
    FailureKind.GATED_MODEL,
    FailureKind.ENGINE_MISSING,
    FailureKind.IMAGE_MISSING,
    FailureKind.WRONG_MODEL,
)
"""Failures that every candidate of the runtime would meet."""


class Exclusions:
    """The failures and successes of a run, and what follows for other candidates."""

    def __init__(self) -> None:
        self._out_of_memory: list[Trial] = []
        self._universal_failures: list[Trial] = []
        self._working_values: set[tuple[str, str]] = set()
        self._refused_values: dict[tuple[str, str], int] = {}
        self._value_failures: list[Trial] = []
        self._successes: list[frozenset[tuple[str, str]]] = []
        self._crashes: dict[str, list[Trial]] = {}

    def add(self, trial: Trial) -> None:
        """Learn from a finished trial."""
        failure = trial.measurement.failure
        settings = _parameter_values(trial.candidate)
        if failure is None and _has_answers(trial):
            self._working_values.update(settings)
            self._successes.append(frozenset(settings))
        elif failure is None:
            self._crashes.setdefault("answered no request", []).append(trial)
        elif failure.kind in OUT_OF_MEMORY_FAILURES:
            self._out_of_memory.append(trial)
        elif failure.kind in UNIVERSAL_FAILURES:
            self._universal_failures.append(trial)
        elif failure.kind in VALUE_FAILURES:
            self._value_failures.append(trial)
        else:
            self._crashes.setdefault(f"ended with {failure.kind.value}", []).append(trial)
        self._find_refused_values()

    def exclusion_reason(self, candidate: Candidate) -> str | None:
        """Why a candidate cannot work after what was seen; None when nothing speaks against it."""
        for trial in self._universal_failures:
            if trial.candidate.runtime == candidate.runtime:
                return f"{_failure_kind(trial)} in trial {trial.number}, as it would be for every candidate"
        for trial in self._out_of_memory:
            if needs_as_much_memory(candidate, trial.candidate):
                return f"needs no less memory than trial {trial.number}, which ran out of it"
        for setting in _parameter_values(candidate):
            if setting in self._refused_values:
                return f"{setting[0]}={setting[1]} was refused in trial {self._refused_values[setting]}"
        for how, trials in self._crashes.items():
            common = frozenset.intersection(*(frozenset(_parameter_values(trial.candidate)) for trial in trials))
            if (
                len(trials) > 1
                and common <= set(_parameter_values(candidate))
                and not any(common <= ok for ok in self._successes)
            ):
                numbers = ", ".join(str(trial.number) for trial in trials)
                return f"trials {numbers}, like it in {_described(common)}, {how}"
        return None

    def success_probability(self, candidate: Candidate) -> float:
        """The chance that it does not crash, by how like the crashed ones it is; 1 when none did."""
        mine = frozenset(_parameter_values(candidate))
        worst = 1.0
        for trial in (trial for trials in self._crashes.values() for trial in trials):
            common = mine & frozenset(_parameter_values(trial.candidate))
            if not any(common <= ok for ok in self._successes):
                worst = min(worst, 1 - 0.5 * len(common) / max(1, len(mine)))
        return worst

    def _find_refused_values(self) -> None:
        """Find the value that a refused flag was about: the one it names, or the only one never seen to work."""
        for trial in self._value_failures:
            settings = [s for s in _parameter_values(trial.candidate) if s not in self._working_values]
            said = trial.measurement.failure.message if trial.measurement.failure else ""
            named = [s for s in settings if s[0] in said.replace("_", "-")]
            guilty = named if len(named) == 1 else settings
            if len(guilty) == 1:
                self._refused_values.setdefault(guilty[0], trial.number)


def needs_as_much_memory(candidate: Candidate, reference: Candidate) -> bool:
    """Whether a candidate certainly needs at least as much memory per GPU: all else equal, and nothing lower."""
    if candidate.runtime != reference.runtime:
        return False
    for name in candidate.parameters.keys() | reference.parameters.keys():
        mine, other = candidate.parameters.get(name), reference.parameters.get(name)
        if mine == other:
            continue
        if name not in MEMORY_DEMAND_SIGN or not _is_number(mine) or not _is_number(other):
            return False
        if (float(mine or 0) - float(other or 0)) * MEMORY_DEMAND_SIGN[name] < 0:
            return False
    return True


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parameter_values(candidate: Candidate) -> Sequence[tuple[str, str]]:
    return [(name, str(value)) for name, value in candidate.parameters.items()]


def _has_answers(trial: Trial) -> bool:
    """Whether any request got an answer; a trial without load points says nothing."""
    results = trial.measurement.load_points
    return not results or any(result.metrics.e2e is not None for result in results)


def _described(values: frozenset[tuple[str, str]]) -> str:
    return " and ".join(f"{name}={value}" for name, value in sorted(values))


def _failure_kind(trial: Trial) -> str:
    return trial.measurement.failure.kind.value if trial.measurement.failure else ""
