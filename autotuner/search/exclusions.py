"""Which untested candidates failed launches rule out, or make less likely to start."""

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
"""Sign of the change of a GPU's memory demand with a parameter's value.

A memory fraction is not among them: an engine can run out of memory with a higher one as with a lower one.
"""

OUT_OF_MEMORY_FAILURES = (FailureKind.OUT_OF_MEMORY_AT_START, FailureKind.OUT_OF_MEMORY_UNDER_LOAD)
VALUE_FAILURES = (FailureKind.BAD_FLAG, FailureKind.NOT_DIVISIBLE)
"""Failures that a single parameter value causes."""

UNIVERSAL_FAILURES = (
    FailureKind.MODEL_NOT_FOUND,
    FailureKind.GATED_MODEL,
    FailureKind.ENGINE_MISSING,
    FailureKind.IMAGE_MISSING,
    FailureKind.WRONG_MODEL,
    FailureKind.VOLUME,
    FailureKind.REJECTED,
)
"""Failures that every candidate of the runtime would have."""

CLUSTER_FAILURES = (
    FailureKind.UNSCHEDULABLE,
    FailureKind.QUOTA,
    FailureKind.EVICTED,
    FailureKind.PREEMPTED,
    FailureKind.NODE_LOST,
    FailureKind.JOB_CANCELLED,
    FailureKind.JOB_TIME_LIMIT,
    FailureKind.JOB_OUT_OF_MEMORY,
)
"""Failures by what else ran on a cluster at the time, which are no evidence about any candidate."""


class Exclusions:
    """Failures and successes of a run, as evidence against other candidates."""

    def __init__(self) -> None:
        self._out_of_memory: list[Trial] = []
        self._universal_failures: list[Trial] = []
        self._working_values: set[tuple[str, str]] = set()
        self._refused_values: dict[tuple[str, str], int] = {}
        self._value_failures: list[Trial] = []
        self._successes: list[frozenset[tuple[str, str]]] = []
        self._crashes: dict[str, list[Trial]] = {}

    def add(self, trial: Trial) -> None:
        """Record a finished trial."""
        failure = trial.measurement.failure
        values = _parameter_values(trial.candidate)
        if failure is None and _has_answers(trial):
            self._working_values.update(values)
            self._successes.append(frozenset(values))
        elif failure is None:
            self._crashes.setdefault("answered no request", []).append(trial)
        elif failure.kind in CLUSTER_FAILURES:
            return
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
        """Why a candidate is expected to fail like earlier trials; None if nothing rules it out."""
        for trial in self._universal_failures:
            if trial.candidate.runtime == candidate.runtime:
                return f"{_failure_kind(trial)} in trial {trial.number}, which would happen to every candidate"
        for trial in self._out_of_memory:
            if needs_as_much_memory(candidate, trial.candidate):
                return f"needs at least as much memory as trial {trial.number}, which ran out of memory"
        values = _parameter_values(candidate)
        for name, value in values:
            if (name, value) in self._refused_values:
                return f"{name}={value} was refused in trial {self._refused_values[name, value]}"
        for symptom, trials in self._crashes.items():
            common = frozenset.intersection(*(frozenset(_parameter_values(trial.candidate)) for trial in trials))
            if len(trials) > 1 and common <= set(values) and not self._has_worked(common):
                numbers = ", ".join(str(trial.number) for trial in trials)
                if not common:
                    return f"trials {numbers} {symptom}, whatever their values"
                return f"trials {numbers} also had {_joined(common)} and {symptom}"
        return None

    def success_probability(self, candidate: Candidate) -> float:
        """Probability that the candidate does not crash: 1 minus half the share of values in common with a crashed one.

        Values in common that also occur in a successful trial do not count. The half was chosen by hand.
        """
        values = frozenset(_parameter_values(candidate))
        probability = 1.0
        for trial in (trial for trials in self._crashes.values() for trial in trials):
            common = values & frozenset(_parameter_values(trial.candidate))
            if not self._has_worked(common):
                probability = min(probability, 1 - 0.5 * len(common) / max(1, len(values)))
        return probability

    def _has_worked(self, values: frozenset[tuple[str, str]]) -> bool:
        """Whether some successful trial had all these values."""
        return any(values <= success for success in self._successes)

    def _find_refused_values(self) -> None:
        """Attribute each refused flag to the one value that its message names, or the only one that never worked."""
        for trial in self._value_failures:
            unproven = [pair for pair in _parameter_values(trial.candidate) if pair not in self._working_values]
            message = trial.measurement.failure.message if trial.measurement.failure else ""
            named = [(name, value) for name, value in unproven if name in message.replace("_", "-")]
            suspects = named if len(named) == 1 else unproven
            if len(suspects) == 1:
                self._refused_values.setdefault(suspects[0], trial.number)


def needs_as_much_memory(candidate: Candidate, reference: Candidate) -> bool:
    """Whether a candidate certainly needs as much memory per GPU as `reference`, or more, all else equal."""
    if candidate.runtime != reference.runtime:
        return False
    for name in candidate.parameters.keys() | reference.parameters.keys():
        value, reference_value = candidate.parameters.get(name), reference.parameters.get(name)
        if value == reference_value:
            continue
        if name not in MEMORY_DEMAND_SIGN or not _is_number(value) or not _is_number(reference_value):
            return False
        if (float(value or 0) - float(reference_value or 0)) * MEMORY_DEMAND_SIGN[name] < 0:
            return False
    return True


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parameter_values(candidate: Candidate) -> Sequence[tuple[str, str]]:
    return [(name, str(value)) for name, value in candidate.parameters.items()]


def _has_answers(trial: Trial) -> bool:
    """Whether any request was answered; true for a trial without load points, which is no evidence of a crash."""
    results = trial.measurement.load_points
    return not results or any(result.metrics.e2e is not None for result in results)


def _joined(values: frozenset[tuple[str, str]]) -> str:
    return " and ".join(f"{name}={value}" for name, value in sorted(values))


def _failure_kind(trial: Trial) -> str:
    return trial.measurement.failure.kind.value if trial.measurement.failure else ""
