"""Every error a user can meet: what happened, why, what to do, and the exit code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autotuner.core import Failure


class AutotuneError(Exception):
    """Base of every error shown to the user as one paragraph."""

    exit_code = 2

    def __init__(self, what: str, *, why: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.remedy = remedy

    def __str__(self) -> str:
        return " ".join(as_sentence(part) for part in (self.what, self.why, self.remedy) if part)


def as_sentence(text: str) -> str:
    """The text with one full stop at its end, unless it ends as a question, a call, an ellipsis or a heading."""
    text = text.rstrip()
    if text.endswith(("?", "!", ":", " ...")):
        return text
    return text.rstrip(".,; ") + "."


def pluralize(number: float, noun: str, plural: str = "") -> str:
    """A number with its noun: `1 trial`, `2 trials`, `3 launches`; `plural` where it is not noun + s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


class UsageError(AutotuneError):
    """The command line asks for something that does not exist or does not fit together."""


class ConfigError(AutotuneError):
    """A configuration, a profile, a scenario or an SLO cannot be used as written."""


class NoFeasibleError(AutotuneError):
    """Everything ran, and nothing met the targets."""

    exit_code = 1


class UndecidedError(AutotuneError):
    """The targets are met, but too few requests prove it; raised only where that is to fail."""

    exit_code = 1


class MachineError(AutotuneError):
    """This machine lacks what the run needs: an engine, a GPU, a port, disk space."""

    exit_code = 3


class EndpointError(AutotuneError):
    """A server that runs already does not answer, refuses, or serves something else."""

    exit_code = 3


class RunStoreError(AutotuneError):
    """A run folder is missing, is not a run, or cannot be written."""

    exit_code = 3


class EngineError(AutotuneError):
    """A server did not start, died or stopped answering; `failure` is what the trial records."""

    exit_code = 3

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"The engine failed ({failure.kind.value}).", why=failure.message, remedy=failure.remedy)
        self.failure = failure


MAX_LISTED_OPTIONS = 12
"""Names that are listed one and all; of more, a SAMPLE says what they look like."""

MAX_SUGGESTIONS, SAMPLE_SIZE = 3, 3


def unknown_name_message(kind: str, name: str, options: Iterable[str]) -> str:
    """Say that `name` is unknown, with the nearest of `options`, all of few, or some of many."""
    import difflib

    known = sorted(set(options))
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    near = near or [option for option in known if name and name.lower() in option.lower()][:MAX_SUGGESTIONS]
    if near:
        *others, last = map(repr, near)
        return f"Unknown {kind} '{name}'; did you mean {', '.join(others) + ' or ' if others else ''}{last}?"
    if len(known) > MAX_LISTED_OPTIONS:
        return f"Unknown {kind} '{name}'; there are {len(known)}, such as {', '.join(known[:SAMPLE_SIZE])}."
    return f"Unknown {kind} '{name}'; known are: {', '.join(known)}."
