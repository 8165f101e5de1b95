"""What failures teach of the candidates not tried yet."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.core import Candidate, FailureKind, Trial, Value

MEMORY = {
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

OUT_OF_MEMORY = (FailureKind.OUT_OF_MEMORY_AT_START, FailureKind.OUT_OF_MEMORY_UNDER_LOAD)
OF_A_VALUE = (FailureKind.BAD_FLAG, FailureKind.NOT_DIVISIBLE)
OF_ALL = (
    FailureKind.MODEL_NOT_FOUND,
    FailureKind.GATED_MODEL,
    FailureKind.ENGINE_MISSING,
    FailureKind.IMAGE_MISSING,
    FailureKind.WRONG_MODEL,
)
"""Failures that every candidate of the runtime would meet."""


class Lessons:
    """The failures and successes of a run, and what follows for other candidates."""

    def __init__(self) -> None:
        self._starved: list[Trial] = []
        self._lost: list[Trial] = []
        self._worked: set[tuple[str, str]] = set()
        self._banned: dict[tuple[str, str], int] = {}
        self._suspect: list[Trial] = []
        self._good: list[frozenset[tuple[str, str]]] = []
        self._crashed: dict[str, list[Trial]] = {}

    def take(self, trial: Trial) -> None:
        """Learn from a finished trial."""
        failure = trial.measurement.failure
        settings = _settings(trial.candidate)
        if failure is None and _answered(trial):
            self._worked.update(settings)
            self._good.append(frozenset(settings))
        elif failure is None:
            self._crashed.setdefault("answered no request", []).append(trial)
        elif failure.kind in OUT_OF_MEMORY:
            self._starved.append(trial)
        elif failure.kind in OF_ALL:
            self._lost.append(trial)
        elif failure.kind in OF_A_VALUE:
            self._suspect.append(trial)
        else:
            self._crashed.setdefault(f"ended with {failure.kind.value}", []).append(trial)
        self._accuse()

    def against(self, candidate: Candidate) -> str | None:
        """Why a candidate cannot work after what was seen; None when nothing speaks against it."""
        for trial in self._lost:
            if trial.candidate.runtime == candidate.runtime:
                return f"{_kind(trial)} in trial {trial.number}, as it would be for every candidate"
        for trial in self._starved:
            if needs_no_less(candidate, trial.candidate):
                return f"needs no less memory than trial {trial.number}, which ran out of it"
        for setting in _settings(candidate):
            if setting in self._banned:
                return f"{setting[0]}={setting[1]} was refused in trial {self._banned[setting]}"
        for how, trials in self._crashed.items():
            common = frozenset.intersection(*(frozenset(_settings(trial.candidate)) for trial in trials))
            if len(trials) > 1 and common <= set(_settings(candidate)) and not any(common <= ok for ok in self._good):
                numbers = ", ".join(str(trial.number) for trial in trials)
                return f"trials {numbers}, like it in {_named(common)}, {how}"
        return None

    def chance(self, candidate: Candidate) -> float:
        """The chance that it does not crash, by how like the crashed ones it is; 1 when none did."""
        mine = frozenset(_settings(candidate))
        worst = 1.0
        for trial in (trial for trials in self._crashed.values() for trial in trials):
            common = mine & frozenset(_settings(trial.candidate))
            if not any(common <= ok for ok in self._good):
                worst = min(worst, 1 - 0.5 * len(common) / max(1, len(mine)))
        return worst

    def _accuse(self) -> None:
        """Find the value that a refused flag was about: the one it names, or the only one never seen to work."""
        for trial in self._suspect:
            settings = [s for s in _settings(trial.candidate) if s not in self._worked]
            said = trial.measurement.failure.said if trial.measurement.failure else ""
            named = [s for s in settings if s[0] in said.replace("_", "-")]
            guilty = named if len(named) == 1 else settings
            if len(guilty) == 1:
                self._banned.setdefault(guilty[0], trial.number)


def needs_no_less(candidate: Candidate, than: Candidate) -> bool:
    """Whether a candidate certainly needs at least as much memory per GPU: all else equal, and nothing lower."""
    if candidate.runtime != than.runtime:
        return False
    for name in candidate.parameters.keys() | than.parameters.keys():
        mine, other = candidate.parameters.get(name), than.parameters.get(name)
        if mine == other:
            continue
        if name not in MEMORY or not _is_number(mine) or not _is_number(other):
            return False
        if (float(mine or 0) - float(other or 0)) * MEMORY[name] < 0:
            return False
    return True


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _settings(candidate: Candidate) -> Sequence[tuple[str, str]]:
    return [(name, str(value)) for name, value in candidate.parameters.items()]


def _answered(trial: Trial) -> bool:
    """Whether any request got an answer; a trial without load points says nothing."""
    results = trial.measurement.load_points
    return not results or any(result.metrics.e2e is not None for result in results)


def _named(settings: frozenset[tuple[str, str]]) -> str:
    return " and ".join(f"{name}={value}" for name, value in sorted(settings))


def _kind(trial: Trial) -> str:
    return trial.measurement.failure.kind.value if trial.measurement.failure else ""
